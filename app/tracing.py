"""Traces, where they are asked for: the one place that knows that what sends them may not be installed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version

from manent.app.settings import Settings
from manent.domain.telemetry import Telemetry

FLUSH_S = 2.0


class TracingUnavailable(Exception):
    """Traces are asked for and cannot be sent; the message says what to do."""


@asynccontextmanager
async def tracing(settings: Settings) -> AsyncGenerator[Sequence[Telemetry], None]:
    """The listener that makes traces, for as long as the context lasts; none where there are to be none.

    Raises:
        TracingUnavailable: the extra is not installed, or an OTEL_* variable is wrong.
    """
    if settings.traces == "off":
        yield ()
        return
    try:
        from manent.adapters.traces.otlp import Tracing  # noqa: PLC0415 (an optional extra)
    except ImportError as error:
        raise TracingUnavailable(
            f"MANENT_TRACES={settings.traces} needs an extra that is not installed ({error.name} is missing): "
            "pip install 'manent[tracing]', or set MANENT_TRACES=off"
        ) from error
    try:
        traces = Tracing(version=version("manent"))
    except ValueError as error:
        raise TracingUnavailable(f"the OTEL_* variables cannot be understood: {error}") from error
    try:
        yield (traces,)
    finally:
        await asyncio.to_thread(traces.close, FLUSH_S)
