"""The runtime inside a worker: its place, its listeners over channels, and what it says.

It must not know which kind of app runs above it, nor anything of the primary but what
``docs/protocol.md`` says.
"""
