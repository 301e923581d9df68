"""multipart/form-data is read the same, however it is cut into pieces on its way."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.multipart import PartBegins, boundary_of, read_parts

BOUNDARY = b"b-1"
VALUES = st.lists(
    st.lists(st.sampled_from([b"\r\n", b"--", b"b-1", b"\r", b"-", b"x", b"\r\n--b-"]), max_size=6).map(b"".join),
    min_size=1,
    max_size=4,
)


def written(values: Sequence[bytes]) -> bytes:
    """A body with these values, which are named by their numbers."""
    parts = [
        b'--b-1\r\nContent-Disposition: form-data; name="%d"\r\n\r\n%s\r\n' % (number, value)
        for number, value in enumerate(values)
    ]
    return b"".join(parts) + b"--b-1--\r\n"


async def read(body: bytes, cuts: Sequence[int] = ()) -> dict[str, bytes]:
    """The values in ``body``, which comes in pieces that end at ``cuts``."""

    async def pieces() -> AsyncGenerator[bytes, None]:
        ends = sorted({cut % (len(body) + 1) for cut in cuts} | {len(body)})
        for start, end in zip([0, *ends], ends, strict=False):
            yield body[start:end]

    found: dict[str, bytes] = {}
    name = ""
    async for part in read_parts(pieces(), BOUNDARY):
        if isinstance(part, PartBegins):
            name = part.name
            found[name] = b""
        else:
            found[name] += part.data
    return found


@for_all(VALUES, st.lists(st.integers(0, 10_000), max_size=12))
async def test_every_way_to_cut_it_is_the_same(values: Sequence[bytes], cuts: Sequence[int]) -> None:
    """What looks like half a boundary is content; a whole one cannot be in it."""
    values = [value for value in values if b"\r\n--b-1" not in b"\r\n" + value + b"\r\n"]
    assert await read(written(values), cuts) == {str(number): value for number, value in enumerate(values)}


async def test_byte_by_byte() -> None:
    """A slow client's form is read as well."""
    body = written([b"one", b"\r\n--b-", b""])
    assert await read(body, range(len(body))) == {"0": b"one", "1": b"\r\n--b-", "2": b""}


async def test_what_ends_too_early_is_refused() -> None:
    """A form without its last boundary may lack anything."""
    body = written([b"one"])
    for end in range(len(body) - 4):
        with pytest.raises(RequestRefused):
            await read(body[:end])


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/mixed; boundary=b",
        "multipart/form-data; boundary=ä",
    ],
)
def test_a_boundary_is_needed(content_type: str | None) -> None:
    """Without one nothing can be told apart."""
    with pytest.raises(RequestRefused) as refused:
        boundary_of(content_type)
    assert refused.value.code == "unsupported_media_type"
