"""Where a runner's reading thread leaves requests for the thread that evaluates. Bounded."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Condition

from manent.adapters.inference.embedding_frames import Embed
from manent.adapters.inference.protocol import Cancel, Forget, Generate, Ping

INBOX_MAX_FRAMES = 4096


class InboxFull(Exception):
    """The server sent far more than its own bounds allow: one of the two is broken."""


@dataclass(frozen=True, slots=True)
class Received:
    """A frame, and the moment at which it came in, on the monotonic clock."""

    frame: Generate | Embed | Cancel | Forget | Ping
    at_s: float


class Inbox:
    """Frames in the order of their arrival, taken all at once.

    A cancellation that overtakes its request removes it here, so that requests which come and go during one long
    evaluation do not pile up: what waits is bounded by what the server has in flight.
    """

    def __init__(self) -> None:
        self._changed = Condition()
        self._waiting: OrderedDict[tuple[type, int], Received] = OrderedDict()

    def put(self, frame: Generate | Embed | Cancel | Forget | Ping) -> None:
        """Leave a frame; InboxFull if nothing was taken for too long."""
        with self._changed:
            if isinstance(frame, Cancel):
                for kind in (Generate, Embed):
                    if self._waiting.pop((kind, frame.id), None) is not None:
                        return
            if len(self._waiting) >= INBOX_MAX_FRAMES:
                raise InboxFull(f"{INBOX_MAX_FRAMES} frames wait to be evaluated")
            self._waiting[type(frame), frame.id] = Received(frame, time.monotonic())
            self._changed.notify()

    def take(self, *, wait: bool) -> list[Received]:
        """All that waits; with ``wait``, at least one, however long that takes (a dead server ends the process)."""
        with self._changed:
            while wait and not self._waiting:
                self._changed.wait()
            taken = list(self._waiting.values())
            self._waiting.clear()
            return taken
