"""How many answers are streamed at once; who comes beyond that is told before a stream is opened."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from manent.adapters.http.errors import RequestRefused

RETRY_S = 5


class OpenStreams:
    """Counts streams against a bound."""

    def __init__(self, streams_max: int) -> None:
        self._max = streams_max
        self.count = 0

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """A place for a stream, for as long as the context lasts.

        Raises:
            RequestRefused: all places are taken.
        """
        if self.count >= self._max:
            raise RequestRefused(
                "too_many_streams",
                f"as many completions are streamed already as may be ({self._max}); try again, or send stream false",
                headers={"retry-after": str(RETRY_S)},
            )
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
