"""A pytest plugin for a live cluster: fixtures and markers for nodes, a report of every outcome.

In: a live file (which cluster, which nodes) and tests. Out: ``report.json`` and ``junit.xml``. Our
suite in ``tests/cluster`` uses it, and users' suites can. :mod:`saf_env.harness.runner` is the
controller's side; everything else runs in the driver's environment, which holds Ray, numpy and
pytest and not what the command line needs.
"""
