"""Image files of all kinds, good and bad, made by Pillow or by hand; and messages that show them."""

from __future__ import annotations

import base64
import hashlib
import io
import struct
import zlib
from typing import Any

from PIL import Image

from manent.domain.messages import ImagePart, Message, Role, TextPart

RED, GREEN = (200, 30, 30), (20, 180, 40)


def picture(
    *, width: int = 64, height: int = 64, color: tuple[int, int, int] = RED, kind: str = "PNG", **options: Any
) -> bytes:
    """An image file: stripes, so that neighbouring patches differ."""
    image = Image.new("RGB", (width, height), color)
    for column in range(0, width, 8):
        image.paste((column % 256, *color[1:]), (column, 0, min(column + 4, width), height // 2))
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animation(kind: str) -> bytes:
    """Two pictures in turn."""
    second = Image.new("RGB", (64, 64), GREEN)
    return picture(kind=kind, save_all=True, append_images=[second], duration=100)


def png_of_size(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it has so many pixels, and has as few rows as fit in them."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def rotated() -> bytes:
    """A JPEG of 96 x 32 pixels that is to be seen on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(width=96, height=32, kind="JPEG", exif=exif)


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """The file as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def image_part(data: bytes, *, text_before: int = 0) -> ImagePart:
    """The file as a message has it."""
    with Image.open(io.BytesIO(data)) as image:
        return ImagePart(
            digest=f"sha256:{hashlib.sha256(data).hexdigest()}",
            media_type="image/png",
            width=image.width,
            height=image.height,
            data=data,
            text_before=text_before,
        )


def shown(text: str, *files: bytes) -> Message:
    """A user's message with images before its text."""
    return Message(
        message_id=f"msg_{len(files)}",
        role=Role.USER,
        content=(TextPart(text=text),),
        images=tuple(map(image_part, files)),
    )
