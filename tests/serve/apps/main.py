"""Named like a module of ours: the app's own must be found."""

import sys
from typing import Any

NUMBER = 5
nothing: Any = None


class Holder:
    @staticmethod
    def serve(listener: Any) -> None:
        for connection, _ in listener:
            with connection:
                connection.sendall(("\n".join(sys.path)).encode())
