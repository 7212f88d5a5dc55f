"""The code that runs on a node.

The nodes' environments hold the locked packages and nothing of saf-env, so this code travels: to a
Ray worker pickled by value, and to a plain process as source text. Each module here therefore
stands alone (standard library, numpy, MLX inside functions), takes and gives plain values, and
works when its text is executed outside any package.
"""
