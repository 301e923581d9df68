"""Signed notes (c2sp.org/signed-note) with Ed25519: text, a blank line, one signature line for each key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from manent.domain.transparency import CheckpointInvalid

ED25519 = b"\x01"
KEY_ID_BYTES = 4
KEY_BYTES = 32
NOTE_BYTES_MAX = 1_000_000
SIGNATURES_MAX = 64
_DASH = "\u2014"
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_VERIFIER_KEY = re.compile(r"([^\s+]+)\+([0-9a-f]{8})\+(\S+)")


class NoteInvalid(CheckpointInvalid):
    """Not a signed note, or not signed by the key that is trusted."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """A key that is trusted, under its name. ``str()`` gives the verifier key, ``name+id+base64``."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """SHA-256(name ‖ LF ‖ 0x01 ‖ public key), its first four bytes."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.public_key).digest()[:KEY_ID_BYTES]

    def __str__(self) -> str:
        return f"{self.name}+{self.key_id.hex()}+{_base64(ED25519 + self.public_key)}"

    @classmethod
    def parse(cls, text: str) -> Verifier:
        """The verifier key that ``text`` writes.

        Raises:
            NoteInvalid: it is none, of another kind than Ed25519, or its id does not belong to its key.
        """
        found = _VERIFIER_KEY.fullmatch(text.strip())
        if found is None:
            raise NoteInvalid("a verifier key reads name+8 hex digits+base64")
        name, key_id, encoded = found.groups()
        key = decode_base64(encoded)
        if key[:1] != ED25519 or len(key) != 1 + KEY_BYTES:
            raise NoteInvalid("the verifier key is not an Ed25519 key")
        verifier = cls(name, key[1:])
        if verifier.key_id.hex() != key_id:
            raise NoteInvalid(f"the verifier key's id is {key_id}, but its name and key give {verifier.key_id.hex()}")
        return verifier


@dataclass(frozen=True, slots=True)
class Signature:
    """A signature line: whose it is, by name and key id, and the signature's bytes."""

    name: str
    key_id: bytes
    signature: bytes


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> str:
    """``text``, which ends in a line feed, signed under ``name``.

    Raises:
        NoteInvalid: the text or the name cannot stand in a note.
    """
    if not text.endswith("\n") or _CONTROL.search(text):
        raise NoteInvalid("a note's text ends in a line feed and has no other control characters")
    if not name or "+" in name or any(letter.isspace() for letter in name):
        raise NoteInvalid(f"{name!r} is no key name: it has neither spaces nor plus signs, and is not empty")
    verifier = Verifier(name, key.public_key().public_bytes_raw())
    return f"{text}\n{_DASH} {name} {_base64(verifier.key_id + key.sign(text.encode()))}\n"


def open_note(note: str, verifier: Verifier) -> str:
    """The text of ``note``, if the trusted key signed it. Signatures of other keys are ignored.

    Raises:
        NoteInvalid: it is malformed, the key did not sign it, or one of its signatures does not verify.
    """
    text, signatures = split_note(note)
    own = [line for line in signatures if (line.name, line.key_id) == (verifier.name, verifier.key_id)]
    if not own:
        raise NoteInvalid(f"the note is not signed by {verifier.name}+{verifier.key_id.hex()}")
    key = Ed25519PublicKey.from_public_bytes(verifier.public_key)
    for line in own:
        try:
            key.verify(line.signature, text.encode())
        except InvalidSignature:
            raise NoteInvalid(f"the signature of {verifier.name} does not belong to this text") from None
    return text


def split_note(note: str) -> tuple[str, Sequence[Signature]]:
    """A note's text and its signature lines, nothing verified.

    Raises:
        NoteInvalid: it is no signed note.
    """
    if len(note) > NOTE_BYTES_MAX or _CONTROL.search(note):
        raise NoteInvalid("a note is text of at most 1 MB without control characters")
    try:
        note.encode()
    except UnicodeEncodeError:
        raise NoteInvalid("a note is UTF-8") from None
    head, blank, tail = note.rpartition("\n\n")
    if not blank or not tail.endswith("\n"):
        raise NoteInvalid("a note is text, a blank line, and signature lines")
    lines = tail[:-1].split("\n")
    if len(lines) > SIGNATURES_MAX:
        raise NoteInvalid(f"a note has at most {SIGNATURES_MAX} signatures")
    return head + "\n", [_signature(line) for line in lines]


def _signature(line: str) -> Signature:
    parts = line.split(" ")
    if len(parts) != 3 or parts[0] != _DASH or not parts[1] or "+" in parts[1]:  # noqa: PLR2004 (dash, name, base64)
        raise NoteInvalid("a signature line reads: em dash, name, base64")
    raw = decode_base64(parts[2])
    if len(raw) <= KEY_ID_BYTES:
        raise NoteInvalid("a signature is longer than its key id")
    return Signature(parts[1], raw[:KEY_ID_BYTES], raw[KEY_ID_BYTES:])


def decode_base64(text: str) -> bytes:
    """Standard base64, in its one canonical writing.

    Raises:
        NoteInvalid: it is not.
    """
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NoteInvalid("it is no base64") from None
    if _base64(raw) != text:
        raise NoteInvalid("it is no canonical base64")
    return raw


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
