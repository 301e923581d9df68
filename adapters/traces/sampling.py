"""Which requests are traced where nobody says so: the first ones of each second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes


class PerSecond(Sampler):
    """Samples at most ``count`` traces in a second: everything on a quiet server, a bounded part under load."""

    def __init__(self, count: int, *, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._count = count
        self._monotonic_s = monotonic_s
        self._left = 0
        self._until_s = 0.0

    def has_room(self) -> bool:
        """Whether one more of this second is sampled."""
        now_s = self._monotonic_s()
        if now_s >= self._until_s:
            self._left, self._until_s = self._count, now_s + 1.0
        return self._left > 0

    def should_sample(  # noqa: PLR0917 (the library's signature)
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        """See ``Sampler.should_sample``."""
        if not self.has_room():
            return SamplingResult(Decision.DROP)
        self._left -= 1
        return SamplingResult(Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        """See ``Sampler.get_description``."""
        return f"PerSecond{{{self._count}}}"
