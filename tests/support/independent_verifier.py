"""A verifier of Manent's log that has nothing of Manent: written from docs/reference/log-format.md alone.

python independent_verifier.py VERIFIER_KEY CHECKPOINT [EVENTS …]: EVENTS are files of `manent events --json`, in order.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MEMBERS = [
    *("actor", "causation_id", "correlation_id", "event_id", "log_id", "payload_digest", "position"),
    *("recorded_at_us", "request_id", "schema_version", "stream_id", "stream_version", "tenant", "type"),
]
EVENT = re.compile(r'\{"object":"event","header":(\{.*?\}),"payload":(.*),"salt":("[A-Za-z0-9+/=]*"|null)\}')
ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Wrong(Exception):
    """The log, the checkpoint or the key is not what it should be."""


def check(sound: bool, what: str) -> None:  # noqa: FBT001 (reads as an assertion)
    """Go on only where it is so."""
    if not sound:
        raise Wrong(what)


def canonical(value: str | int | None) -> str:
    """A member's value as RFC 8785 writes it: only strings, integers and null occur."""
    if value is None:
        return "null"
    if isinstance(value, int):
        return str(value)
    written = (ESCAPES.get(letter) or (f"\\u{ord(letter):04x}" if letter < " " else letter) for letter in value)
    return '"' + "".join(written) + '"'


def header_bytes(header: dict[str, str | int | None]) -> bytes:
    """The bytes that are hashed."""
    check(sorted(header) == MEMBERS, f"the header has the members {sorted(header)}")
    return ("{" + ",".join(f'"{name}":{canonical(header[name])}' for name in MEMBERS) + "}").encode()


def leaf(entry: bytes) -> bytes:
    """RFC 6962, 2.1."""
    return hashlib.sha256(b"\x00" + entry).digest()


def tree_root(leaves: Iterable[bytes], size: int) -> bytes:
    """The root of the first ``size`` leaves: equal perfect subtrees are joined as they come, the rest at the end."""
    stack: list[tuple[int, bytes]] = []
    for _, node in zip(range(size), leaves, strict=False):
        level, joined = 0, node
        while stack and stack[-1][0] == level:
            joined = hashlib.sha256(b"\x01" + stack.pop()[1] + joined).digest()
            level += 1
        stack.append((level, joined))
    if not stack:
        return hashlib.sha256(b"").digest()
    root = stack.pop()[1]
    while stack:
        root = hashlib.sha256(b"\x01" + stack.pop()[1] + root).digest()
    return root


def open_checkpoint(note: str, verifier_key: str) -> tuple[str, int, bytes]:
    """Origin, size and root of a checkpoint that the key signed."""
    name, key_id, encoded = verifier_key.strip().split("+", 2)
    key = base64.b64decode(encoded)
    check(key[0] == 1 and len(key) == 33, "the key is not Ed25519")
    check(hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id, "the key's id is not its own")
    head, _, signatures = note.rpartition("\n\n")
    text = head + "\n"
    own = [line.split(" ")[2] for line in signatures.split("\n") if line.startswith(f"\u2014 {name} ")]
    signed = [base64.b64decode(one) for one in own]
    signed = [one[4:] for one in signed if one[:4].hex() == key_id]
    check(bool(signed), "the checkpoint is not signed by the key")
    for signature in signed:
        Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature, text.encode())
    origin, size, root = text.split("\n")[:3]
    check(origin == name, "the checkpoint is of another log")
    return origin, int(size), base64.b64decode(root)


class Log:
    """Lines of `manent events --json`, checked one after the other; iterating gives the leaves."""

    def __init__(self, lines: Iterable[str], log_id: str) -> None:
        self._lines = lines
        self._log_id = log_id
        self._streams: dict[tuple[str, str], int] = {}
        self._before_us = 0
        self.position = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self._lines:
            self.position += 1
            found = EVENT.fullmatch(line.rstrip("\n"))
            check(found is not None, f"position {self.position}: the line is no event")
            assert found is not None
            header = json.loads(found[1])
            self._check_place(header)
            if found[2] != "null":
                digest = hashlib.sha256(base64.b64decode(json.loads(found[3])) + found[2].encode()).hexdigest()
                check(digest == header["payload_digest"], f"position {self.position}: the payload is not its own")
            yield leaf(header_bytes(header))

    def _check_place(self, header: dict[str, int | str]) -> None:
        at = f"position {self.position}: "
        check(header["position"] == self.position, at + f"{header['position']} stands there")
        check(header["log_id"] == self._log_id, at + "it is of another log")
        check(int(header["recorded_at_us"]) >= self._before_us, at + "time runs backwards")
        stream = str(header["tenant"]), str(header["stream_id"])
        check(header["stream_version"] == self._streams.get(stream, 0) + 1, at + "its stream has a gap")
        self._streams[stream] = int(header["stream_version"])
        self._before_us = int(header["recorded_at_us"])


def verify(lines: Iterable[str], note: str, verifier_key: str) -> int:
    """How many events the checkpoint covers, if the log is the one that was signed."""
    origin, size, root = open_checkpoint(note, verifier_key)
    log = Log(lines, origin.removeprefix("manent/"))
    check(tree_root(iter(log), size) == root, f"the first {size} events are not those that were signed")
    check(log.position >= size, f"the log ends at {log.position}, before the checkpoint's {size}")
    return size


if __name__ == "__main__":
    texts = [Path(name).read_text(encoding="utf-8") for name in sys.argv[2:]]
    events = (line for text in texts[1:] for line in text.removesuffix("\n").split("\n"))
    sys.stdout.write(f"sound: {verify(events, texts[0], sys.argv[1])} events\n")
