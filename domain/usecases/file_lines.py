"""The lines of a file, read piece by piece: memory for one piece and one line, whatever the file's length."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from manent.domain.batch_work import LineRefused

YIELD_LINES = 64
LINE_BYTES_MAX = 16 * 1024 * 1024


async def file_lines(pieces: AsyncIterator[bytes]) -> AsyncGenerator[tuple[int, bytes], None]:
    """Number, from 1, and bytes of each line that is not blank, without its end.

    Raises:
        LineRefused: a line is over ``LINE_BYTES_MAX``; nothing behind it can be told.
    """
    number, held = 0, b""
    async for piece in pieces:
        *lines, held = (held + piece).split(b"\n")
        for line in lines:
            number += 1
            if number % YIELD_LINES == 0:
                await asyncio.sleep(
                    0
                )  # whoever reads lines does something with each: others have their turn in between
            if line.strip():
                yield number, line
        if len(held) > LINE_BYTES_MAX:
            raise LineRefused("line_too_large", f"line {number + 1} has more than {LINE_BYTES_MAX} bytes")
    if held.strip():
        yield number + 1, held
