"""What runs an app inside a worker: it is loaded, recognised, and given to a server for its kind.

Nothing here knows the primary; what it is told stands in ``RRDISPATCH_APP``.
"""
