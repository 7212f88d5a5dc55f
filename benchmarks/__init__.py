"""How long saf-env's commands take, each beside the plain tool of the same kind.

Every figure is the wall time of whole processes. Ours and the plain tool take turns (A B A B),
after a warm-up that does not count, so that a machine that gets slower or faster meanwhile does so
for both. Nothing is asserted: a figure over its limit is shown as such and the exit code is 0.
"""
