"""What a session's id, metadata and time to live may be."""

from __future__ import annotations

import re
from collections.abc import Mapping

from manent.domain.errors import InvalidValue

SESSION_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:@+=~-]{0,127}")
RESERVED_IDS = frozenset({"import"})
METADATA_PAIRS_MAX, METADATA_KEY_CHARS_MAX, METADATA_VALUE_CHARS_MAX = 16, 64, 512
TTL_S_MAX = 10 * 366 * 24 * 3600


def check_session_id(session_id: str) -> None:
    """Raise InvalidValue unless ``session_id`` can stand in a stream's name, an address and a log line."""
    if not SESSION_ID.fullmatch(session_id):
        raise InvalidValue(
            f"session_id {session_id[:160]!r} is not valid: use 1 to 128 letters, digits and any of . _ : @ + = ~ -, "
            "beginning with a letter, a digit or _",
            param="session_id",
        )
    if session_id in RESERVED_IDS:
        raise InvalidValue(f"session_id {session_id!r} is a name of the API; use another", param="session_id")


def check_metadata(metadata: Mapping[str, str]) -> None:
    """Raise InvalidValue beyond OpenAI's limits: 16 pairs, keys of 64 characters, values of 512."""
    if len(metadata) > METADATA_PAIRS_MAX:
        raise InvalidValue(f"metadata has {len(metadata)} pairs; at most 16 are allowed", param="metadata")
    for key, value in metadata.items():
        if len(key) > METADATA_KEY_CHARS_MAX or len(value) > METADATA_VALUE_CHARS_MAX:
            raise InvalidValue(
                f"metadata key {key[:80]!r} has {len(key)} characters and its value {len(value)}; "
                "at most 64 and 512 are allowed",
                param="metadata",
            )
        if "\0" in key or "\0" in value:
            raise InvalidValue(f"metadata key {key!r} or its value contains U+0000", param="metadata")


def check_ttl(ttl_s: int | None) -> None:
    """Raise InvalidValue unless a session may live so long; None is for ever."""
    if ttl_s is not None and not 1 <= ttl_s <= TTL_S_MAX:
        raise InvalidValue(f"ttl_s is {ttl_s}; it must be between 1 and {TTL_S_MAX} seconds", param="ttl_s")
