"""What a run saw: read from its versioned JSON, kept by number, drawn for people.

In: ``.saf/runs/<run-id>/report.json``, written by the suite. Out: a table, a list of runs.
"""
