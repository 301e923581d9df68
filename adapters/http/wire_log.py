"""What clients get of the log's checkpoints and proofs, as pydantic models; hashes are in base64, as C2SP has them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manent.adapters.http.wire_responses import Answer


class Checkpoint(Answer):
    """A signed head of the log's tree; ``note`` is the whole of it (C2SP tlog-checkpoint), the rest is read from it."""

    object: Literal["log.checkpoint"] = "log.checkpoint"
    size: int
    origin: str
    root: str
    issued_at_us: int
    note: str


class CheckpointList(Answer):
    """A page of checkpoints. ``first_id`` and ``last_id`` are sizes; ``last_id`` goes into ``after``."""

    object: Literal["list"] = "list"
    data: list[Checkpoint]
    first_id: str | None
    last_id: str | None
    has_more: bool


class InclusionProof(Answer):
    """PATH of RFC 6962, from the leaf's sibling upwards. The leaf's index is ``position`` - 1."""

    object: Literal["log.inclusion_proof"] = "log.inclusion_proof"
    position: int
    size: int
    root: str
    hashes: list[str] = Field(description="Base64, 32 bytes each.")


class ConsistencyProof(Answer):
    """PROOF of RFC 6962: the tree of ``old`` events is the beginning of that of ``new``."""

    object: Literal["log.consistency_proof"] = "log.consistency_proof"
    old: int
    new: int
    old_root: str
    new_root: str
    hashes: list[str] = Field(description="Base64, 32 bytes each.")
