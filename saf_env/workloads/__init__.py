"""Pieces of work with a known right answer and a figure of merit, placed on chosen nodes.

In: an address and nodes. Out: outcomes, right or wrong, each with its figure and the share of what
the node can do at that moment. Nothing here is imported by the command line at its start.
"""
