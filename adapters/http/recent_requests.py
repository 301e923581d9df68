"""Which completion a request was answered with, for a while: for SDKs that try again without saying what."""

from __future__ import annotations

from collections import OrderedDict

REMEMBERED_MAX = 4096


class RecentRequests:
    """Which completion a request was answered with; the last so many."""

    def __init__(self, *, remembered_max: int = REMEMBERED_MAX) -> None:
        self._remembered_max = remembered_max
        self._completion_ids: OrderedDict[str, str] = OrderedDict()

    def remember(self, request: str, completion_id: str) -> None:
        """Keep it; the oldest goes."""
        self._completion_ids[request] = completion_id
        self._completion_ids.move_to_end(request)
        while len(self._completion_ids) > self._remembered_max:
            self._completion_ids.popitem(last=False)

    def find(self, request: str) -> str | None:
        """The completion of this request, if it is remembered."""
        return self._completion_ids.get(request)
