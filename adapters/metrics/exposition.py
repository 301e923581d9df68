"""The text that Prometheus scrapes, in its own format or in OpenMetrics, whichever the scraper asks for."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

REUSED_S = 0.25
ACCEPT_CHARS_MAX = 512
FORMATS_MAX = 4


class Exposition:
    """Renders a registry. Who asks again at once, or in a crowd, gets the same text."""

    def __init__(self, registry: CollectorRegistry, *, monotonic_s: Callable[[], float] = monotonic) -> None:
        self._registry = registry
        self._monotonic_s = monotonic_s
        self._rendered: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """The metrics as text, and its media type; ``accept`` is the header of the request."""
        try:
            encode, content_type = choose_encoder(accept[:ACCEPT_CHARS_MAX])
        except Exception:  # noqa: BLE001 (a header that the library cannot read asks for nothing in particular)
            encode, content_type = choose_encoder("")
        now_s = self._monotonic_s()
        rendered = self._rendered.get(content_type)
        if rendered is None or now_s - rendered[0] > REUSED_S:
            if len(self._rendered) >= FORMATS_MAX:
                self._rendered.clear()
            rendered = self._rendered[content_type] = now_s, encode(self._registry)
        return rendered[1], content_type
