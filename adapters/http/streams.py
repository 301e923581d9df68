"""How many answers are streamed at once, and how many sockets are open; who comes beyond that is told before."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from manent.adapters.http.errors import RequestRefused

RETRY_S = 5
STREAMS = (
    "too_many_streams",
    "as many completions are streamed already as may be ({}); try again, or send stream false",
)
WEBSOCKETS = ("too_many_websockets", "as many WebSockets are open already as may be ({}); try again, or use HTTP")


class OpenStreams:
    """Counts against a bound; ``refusal`` is the code and the words for who comes beyond it."""

    def __init__(self, streams_max: int, refusal: tuple[str, str] = STREAMS) -> None:
        self._max = streams_max
        self._refusal = refusal
        self.count = 0

    @contextmanager
    def place(self) -> Generator[None, None, None]:
        """A place, for as long as the context lasts.

        Raises:
            RequestRefused: all places are taken.
        """
        if self.count >= self._max:
            code, words = self._refusal
            raise RequestRefused(code, words.format(self._max), retry_after_s=RETRY_S)
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1
