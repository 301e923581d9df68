"""Bounds that all buffers of streams keep."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamLimits:
    """How much is kept of one stream and of all, bytes, and for how long after its last delta, seconds."""

    stream_bytes_max: int = 4 * 1024 * 1024
    total_bytes_max: int = 256 * 1024 * 1024
    keep_s: float = 900.0
