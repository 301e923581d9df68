"""multipart/form-data (RFC 7578), read as it comes in: memory for one field and one piece, whatever a file's size."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from dataclasses import dataclass
from email.message import Message
from email.parser import HeaderParser

from manent.adapters.http.errors import RequestRefused

HEAD_BYTES_MAX = 16 * 1024
PARTS_MAX = 32
BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class PartBegins:
    """A part begins: a field, or a file where it has a name of one."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """What comes next of the part that began last."""

    data: bytes


def boundary_of(content_type: str | None) -> bytes:
    """The boundary of a body.

    Raises:
        RequestRefused: it is not declared as multipart/form-data, or without a boundary that can be one.
    """
    header = Message()
    header["content-type"] = content_type or ""
    boundary = header.get_param("boundary")
    if header.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        raise RequestRefused(
            "unsupported_media_type",
            f"content-type is {(content_type or '')[:100]!r}; send 'multipart/form-data' with a boundary",
        )
    if not BOUNDARY.fullmatch(boundary):
        raise RequestRefused("unsupported_media_type", "the boundary of the body is none (RFC 2046, 5.1.1)")
    return boundary.encode("ascii")


async def read_parts(body: AsyncIterator[bytes], boundary: bytes) -> AsyncGenerator[PartBegins | PartData, None]:
    """The parts of ``body``, each as its beginning and what is in it, in pieces.

    Raises:
        RequestRefused: the body is no multipart/form-data, or has more parts or longer heads than it may.
    """
    form = _Form(boundary)
    async for data in body:
        for part in form.feed(data):
            yield part
    if not form.ended:
        raise _broken("it ends before its last boundary")


class _Form:
    """What has come of a form and cannot be told yet: the beginning of a boundary, perhaps, or half of a head."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._held = b"\r\n"  # the first delimiter need not stand behind an end of line
        self._parts = 0
        self._in_part = False
        self.ended = False

    def feed(self, data: bytes) -> Iterator[PartBegins | PartData]:
        """What ``data`` adds; what stands behind the last boundary is nothing."""
        self._held += data
        while not self.ended:
            at = self._held.find(self._delimiter)
            # A delimiter may have begun at the end of what is here.
            whole = at if at >= 0 else max(0, len(self._held) - len(self._delimiter) + 1)
            if whole and self._in_part:
                yield PartData(self._held[:whole])
            self._held = self._held[whole:]
            if at < 0:
                return
            self._in_part = False
            if not (yield from self._next_part()):
                return

    def _next_part(self) -> Generator[PartBegins, None, bool]:
        """The part whose delimiter is at the beginning of what is held; False where its head has not all come."""
        begins = len(self._delimiter)
        if self._held.startswith(b"--", begins):
            self.ended, self._held = True, b""
            return True
        end = self._held.find(END_OF_HEAD, begins)
        if max(end, len(self._held) if end < 0 else 0) > HEAD_BYTES_MAX:
            raise _broken(f"the head of a part is over {HEAD_BYTES_MAX} bytes")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > PARTS_MAX:
            raise _broken(f"it has more than {PARTS_MAX} parts")
        yield _part(self._held[begins:end])
        self._held, self._in_part = self._held[end + len(END_OF_HEAD) :], True
        return True


def _part(head: bytes) -> PartBegins:
    """What the head of a part says, from behind its delimiter."""
    if not head.startswith(b"\r\n"):
        raise _broken("a boundary is not followed by an end of line")
    fields = HeaderParser().parsestr(head[2:].decode("utf-8", "replace"))
    name = fields.get_param("name", header="content-disposition")
    try:
        filename = fields.get_filename()
    except ValueError:  # an extended name (RFC 5987) whose character set cannot decode it
        raise _broken("the file's name cannot be decoded; send it in UTF-8") from None
    if fields.get_content_disposition() != "form-data" or not isinstance(name, str):
        raise _broken("a part has no 'Content-Disposition: form-data' with a name")
    return PartBegins(name=name, filename=filename)


def _broken(what: str) -> RequestRefused:
    return RequestRefused("invalid_value", f"the body could not be read as multipart/form-data: {what}")
