"""Fails at import, inside another function, so that there is a traceback to show."""


def connect() -> None:
    raise ValueError("no such database")


connect()
