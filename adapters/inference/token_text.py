"""What a single token adds to the text, as bytes: a character may span several tokens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mlx_lm.tokenizer_utils import BPEStreamingDetokenizer, SPMStreamingDetokenizer

TokenBytes = Callable[[int], bytes]

_SPACE = "\u2581"


def token_bytes_of(tokenizer: Any) -> TokenBytes:
    """The function from token ids to bytes of a tokenizer.

    Byte-level and SentencePiece vocabularies are read exactly; of another kind of tokenizer, a token that is part of a
    character decodes to U+FFFD. Ids beyond the vocabulary (models pad it) have no bytes.
    """
    detokenizer = tokenizer.detokenizer
    size = len(tokenizer)
    special = set(tokenizer.all_special_ids) | set(getattr(tokenizer, "added_tokens_decoder", {}))
    if isinstance(detokenizer, BPEStreamingDetokenizer):
        read = _byte_level
    elif isinstance(detokenizer, SPMStreamingDetokenizer):
        read = _sentence_piece
    else:
        return lambda token: tokenizer.decode([token]).encode() if token < size else b""

    def token_bytes(token: int) -> bytes:
        if token >= size:
            return b""
        piece = str(tokenizer.convert_ids_to_tokens(token))
        return piece.encode() if token in special else read(piece)

    return token_bytes


def _byte_level(piece: str) -> bytes:
    return b"".join(_BYTES.get(character, character.encode()) for character in piece)


def _sentence_piece(piece: str) -> bytes:
    if len(piece) == len("<0x00>") and piece.startswith("<0x") and piece.endswith(">"):
        return bytes([int(piece[3:5], 16)])
    return piece.replace(_SPACE, " ").encode()


def _byte_characters() -> dict[str, bytes]:
    """GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and on, in order."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): bytes([byte]) for byte in printable} | {
        chr(0x100 + number): bytes([byte]) for number, byte in enumerate(others)
    }


_BYTES = _byte_characters()
