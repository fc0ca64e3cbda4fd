"""A channel: the per-worker backlog between the dispatcher and one worker, for one listener.

Owns its two ends. Whoever holds a duplicate of the receiving end keeps what is queued alive.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from rrdispatch import _core


@dataclass(slots=True)
class Channel:
    """Both ends of one channel; -1 after close."""

    sender: int
    receiver: int

    @classmethod
    def create(cls) -> Channel:
        """A new pair, close-on-exec."""
        return cls(*_core.channel_pair())

    def pending(self) -> int:
        """Messages that nobody has taken."""
        return _core.pending(self.receiver)

    def close(self) -> None:
        """Close both ends; a second close does nothing."""
        ends = {self.sender, self.receiver} - {-1}
        self.sender = self.receiver = -1
        for fd in ends:
            os.close(fd)
