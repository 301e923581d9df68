"""Where this process left the log: its head, and the versions of the streams that it wrote last.

They are right for as long as the head is where it was left: every append, whosever it is, moves it. So a writer looks
at the head under its lock, and asks the database for no more than it does not know.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from manent.adapters.store.batch import AppendRequest, Batch, Head, StreamKey

STREAMS_MAX = 1_000


class KnownLog:
    """Belongs to a writer, which forgets it whenever what it wrote may not be there."""

    def __init__(self) -> None:
        self._head: Head | None = None
        self._versions: dict[StreamKey, int] = {}

    @property
    def head(self) -> Head | None:
        """The head as it was left."""
        return self._head

    def forget(self) -> None:
        """Somebody else appended, or an append of this process failed."""
        self._head = None
        self._versions = {}

    def versions(self, requests: Iterable[AppendRequest]) -> tuple[dict[StreamKey, int], list[StreamKey]]:
        """The known versions, and the streams of ``requests`` of which none is known.

        Whoever adds to the versions, or changes them, has them kept or forgotten then.
        """
        if self._head is None:
            self._versions = {}  # without a head nothing says how long they are right
        known = self._versions  # a difference of sets would look at all that is known
        return known, list({stream for request in requests if (stream := request.stream) not in known})

    def keep(self, batch: Batch) -> None:
        """What ``batch``, which was committed, left."""
        self._head = batch.head
        self._versions = batch.versions
        if (excess := len(self._versions) - STREAMS_MAX) > 0:
            # Many at a time: whoever looks for the first key of a dict passes all those that were deleted before it.
            for stream in list(islice(self._versions, excess + STREAMS_MAX // 8)):
                del self._versions[stream]
