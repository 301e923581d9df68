"""What a request's head must look like (RFC 9112), where Sanic is more lenient than is safe behind a proxy.

What two programs read differently can be used to smuggle a request past one of them: so bare line feeds, folded lines,
control characters, white space before a colon and anything but one plain length are refused, never mended.
"""

from __future__ import annotations

import re

from sanic.exceptions import BadRequest

# Possessive, so that no input is read twice: method, target and version; then name, colon and value of each field.
HEAD = re.compile(
    rb"[A-Za-z]{1,32} ([\x21-\x7e]++) HTTP/1\.([01])"
    rb"(?:\r\n[!#$%&'*+.^_`|~0-9A-Za-z-]++:[^\x00-\x08\x0a-\x1f\x7f]*+)*+"
)
TARGET = re.compile(rb"/.*|\*|https?://[^/?#@]+/.*", re.DOTALL | re.IGNORECASE)
LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([^\r]*)", re.IGNORECASE)
CODING = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
HOST = re.compile(rb"\r\nhost:", re.IGNORECASE)
PLAIN_LENGTH = re.compile(rb"\d{1,18}[ \t]*")
CHUNK_LINE = re.compile(rb"\r\n[0-9A-Fa-f]{1,15}[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?")


def check_head(head: bytes) -> None:
    """Refuse a head that can be read in two ways.

    Raises:
        BadRequest: it can, or it is none.
    """
    found = HEAD.fullmatch(head)
    if found is None or TARGET.fullmatch(found[1]) is None:
        raise BadRequest("the head is not what RFC 9112 says")
    if len(HOST.findall(head)) > 1:
        raise BadRequest("there is more than one Host")
    lengths = LENGTH.findall(head)
    if any(PLAIN_LENGTH.fullmatch(length) is None for length in lengths) or len(lengths) > 1:
        raise BadRequest("Content-Length is not one decimal number")
    if CODING.search(head) is not None and (lengths or found[2] == b"0"):
        raise BadRequest("Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0")


def check_chunk_line(line: bytes) -> None:
    """Refuse what stands before a chunk: the end of the line before, then hexadecimal digits and maybe extensions.

    Raises:
        BadRequest: it is something else.
    """
    if CHUNK_LINE.fullmatch(line) is None:
        raise BadRequest("a chunk does not begin with its size, or the one before does not end where it should")
