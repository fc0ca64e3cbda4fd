"""Node's ``cluster`` in Python (docs/node.md): the script is the primary, its workers run it again.

``from rrdispatch import cluster`` is the door to it. Importing this package loads nothing.
"""
