"""``rrdispatch monit``: the apps as they are at this moment, on the whole screen.

Owns no app: what it shows comes from primaries, /proc and log files, and what it does is done by
the commands of the same names, each in a process of its own. Only ``app``, ``grid`` and ``screens``
know textual.
"""
