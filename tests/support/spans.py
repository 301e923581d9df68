"""Spans as an exporter gets them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Spans(SpanExporter):
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.kept: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Keep them."""
        self.kept.extend(spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Nothing to end."""

    async def of(self, count: int) -> list[ReadableSpan]:
        """All spans, once there are so many and no more come."""
        async with asyncio.timeout(10):
            while len(self.kept) < count:  # noqa: ASYNC110 (the batch processor sends no event)
                await asyncio.sleep(0.02)
        await asyncio.sleep(0.1)
        return self.kept
