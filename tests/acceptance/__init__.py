"""What rrdispatch promises, shown with real processes and real connections; one file per promise.

1. Connections are split evenly.
2. A stuck worker delays nobody else, and its death loses nothing that is queued.
3. Nobody waits longer than with a shared queue.
4. A kill costs only what was inside the worker.
5. Reloads lose nothing, broken ones change nothing.
6. Nobody is refused or reset while there is an app.
7. Dispatching is cheap: the benchmark, `make bench`, is not here.
8. Nothing leaks.
9. Bad input gets one clear answer.

Small on every run; `make accept` (``RRDISPATCH_FULL=1``) uses the full counts. Each test shows its
figures in the table at the end of the run. Bulk tests use ``probation=0.2`` and kill tests
``max_restarts=0``.
"""
