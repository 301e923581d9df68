"""What a runner tells of its prefix cache."""

from __future__ import annotations

import msgspec


class PrefixStats(msgspec.Struct, frozen=True):
    """What the prefix cache keeps and did since the runner started: sizes, counters, and misses by ``CacheMiss``."""

    memory_bytes: int = 0
    pieces: int = 0
    hits: int = 0
    hits_from_disk: int = 0
    misses: dict[str, int] = {}
    prompt_tokens: int = 0
    reused_tokens: int = 0
    evictions: int = 0
    failures: int = 0
    files_written: int = 0
    files_skipped: int = 0
    files_removed: int = 0
    files_damaged: int = 0
