"""Checkpoints (c2sp.org/tlog-checkpoint) and proofs of inclusion in a file (c2sp.org/tlog-proof)."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from manent.adapters.merkle.notes import NoteInvalid, Verifier, decode_base64, open_note, split_note
from manent.domain.merkle import HASH_BYTES, leaf_hash, verify_inclusion
from manent.domain.transparency import TreeHead

PROOF_FIRST_LINE = "c2sp.org/tlog-proof@v1"
PROOF_CHARS_MAX = 2_000_000
HASHES_MAX = 64
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,18}")


def origin_of(log_id: str) -> str:
    """The name of a log, in its checkpoints and of its key."""
    return f"manent/{log_id}"


def checkpoint_text(origin: str, head: TreeHead) -> str:
    """What is signed: origin, size and root, one a line."""
    return f"{origin}\n{head.size}\n{base64.b64encode(head.root).decode('ascii')}\n"


def open_checkpoint(note: str, verifier: Verifier) -> TreeHead:
    """The tree head that a checkpoint of the verifier's log says.

    Raises:
        CheckpointInvalid: it is malformed, of another log, or its signature does not verify.
    """
    origin, head = _parsed(open_note(note, verifier))
    if origin != verifier.name:
        raise NoteInvalid(f"the checkpoint is of the log {origin!r}, not {verifier.name!r}")
    return head


def _parsed(text: str) -> tuple[str, TreeHead]:
    lines = text[:-1].split("\n")
    if len(lines) < 3 or not all(lines):  # noqa: PLR2004 (origin, size, root)
        raise NoteInvalid("a checkpoint is at least three lines: origin, size, root")
    origin, size, root = lines[:3]
    if not _DECIMAL.fullmatch(size):
        raise NoteInvalid(f"the checkpoint's size {size[:40]!r} is no number")
    decoded = decode_base64(root)
    if len(decoded) != HASH_BYTES:
        raise NoteInvalid(f"the checkpoint's root has {len(decoded)} bytes, not {HASH_BYTES}")
    return origin, TreeHead(size=int(size), root=decoded)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProofFile:
    """A proof that an entry (a header's bytes) is number ``index``, from 0, of the tree of a checkpoint."""

    entry: bytes
    index: int
    hashes: Sequence[bytes]
    checkpoint: str

    def __str__(self) -> str:
        lines = [PROOF_FIRST_LINE, f"extra {_base64(self.entry)}", f"index {self.index}", *map(_base64, self.hashes)]
        return "\n".join(lines) + "\n\n" + self.checkpoint

    @classmethod
    def parse(cls, text: str) -> ProofFile:
        """The proof that ``text`` writes, nothing verified.

        Raises:
            NoteInvalid: it is none, or lacks the entry.
        """
        if len(text) > PROOF_CHARS_MAX:
            raise NoteInvalid("the proof is larger than any of a log's")
        head, blank, checkpoint = text.partition("\n\n")
        lines = head.split("\n")
        if not blank or lines[0] != PROOF_FIRST_LINE:
            raise NoteInvalid(f"a proof begins with {PROOF_FIRST_LINE}, and a blank line precedes its checkpoint")
        if len(lines) < 3 or not lines[1].startswith("extra ") or not lines[2].startswith("index "):  # noqa: PLR2004 (see the format)
            raise NoteInvalid("the proof has no line 'extra' with the event's header, or no line 'index'")
        index = lines[2].removeprefix("index ")
        if not _DECIMAL.fullmatch(index) or len(lines) - 3 > HASHES_MAX:
            raise NoteInvalid("the proof's index is no number, or it has more hashes than a tree has levels")
        hashes = [decode_base64(line) for line in lines[3:]]
        if any(len(one) != HASH_BYTES for one in hashes):
            raise NoteInvalid(f"a hash has {HASH_BYTES} bytes")
        split_note(checkpoint)
        entry = decode_base64(lines[1].removeprefix("extra "))
        return cls(entry=entry, index=int(index), hashes=hashes, checkpoint=checkpoint)

    def verify(self, verifier: Verifier) -> TreeHead:
        """The tree that the entry is in.

        Raises:
            CheckpointInvalid: the checkpoint is not the log's, or the entry is not in its tree at the index.
        """
        head = open_checkpoint(self.checkpoint, verifier)
        if not verify_inclusion(leaf_hash(self.entry), self.index, head.size, self.hashes, head.root):
            raise NoteInvalid(f"the header is not number {self.index} (from 0) of the checkpoint's tree")
        return head


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
