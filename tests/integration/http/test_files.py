"""Files as OpenAI's own client and others send them: bounds, pages, bytes that are what they were."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    BadRequestError,
    InternalServerError,
    NotFoundError,
)

from manent.adapters.store.memory import MemoryEventStore
from manent.adapters.store.memory_work import MemoryFileContent
from manent.app.system import RandomIds
from manent.domain.files import CHUNK_BYTES, FileLimits
from manent.domain.usecases.manage_files import ORPHAN_S
from tests.support.fakes import FakeClock
from tests.support.http import Running, running_server

pytestmark = pytest.mark.asyncio(loop_scope="module")

BYTES_MAX = 3 * CHUNK_BYTES


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def clock() -> FakeClock:
    """The server's clock."""
    return FakeClock()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def content(clock: FakeClock) -> MemoryFileContent:
    """The bytes of its files."""
    store = MemoryEventStore(clock=clock, ids=RandomIds())
    return MemoryFileContent(store.work, now_us=clock.now_us)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(clock: FakeClock, content: MemoryFileContent) -> AsyncGenerator[Running, None]:
    """A server that takes small files."""
    async with running_server(clock=clock, content=content, file_bytes_max=str(BYTES_MAX), files_max="20") as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def client(running: Running) -> AsyncGenerator[AsyncOpenAI, None]:
    """The official client; what it leaves is deleted."""
    async with running.openai() as client:
        yield client
        async for file in client.files.list():
            await client.files.delete(file.id)


@pytest.mark.parametrize("size_bytes", [1, CHUNK_BYTES - 1, CHUNK_BYTES, 2 * CHUNK_BYTES + 7, BYTES_MAX])
async def test_bytes_come_back_as_they_went(client: AsyncOpenAI, running: Running, size_bytes: int) -> None:
    """Whatever is in them, at every length around a piece's; their digest stands in the log."""
    data = hashlib.shake_128(str(size_bytes).encode()).digest(size_bytes)
    file = await client.files.create(file=("in.jsonl", data), purpose="batch")
    assert (file.bytes, file.filename, file.status, file.object) == (size_bytes, "in.jsonl", "processed", "file")
    assert (await client.files.content(file.id)).content == data
    last = (await running.log("FileAdded"))[-1]
    assert json.loads(last.payload or b"")["sha256"] == hashlib.sha256(data).hexdigest()
    assert (await client.files.delete(file.id)).deleted
    for ask in (client.files.retrieve(file.id), client.files.content(file.id), client.files.delete(file.id)):
        with pytest.raises(NotFoundError):
            await ask


async def test_bytes_that_were_changed_are_told(client: AsyncOpenAI, content: MemoryFileContent) -> None:
    """They are not those of the event: the download is refused, or cut where they would have ended."""
    for size_bytes in (10, CHUNK_BYTES + 10):
        file = await client.files.create(file=("in.jsonl", b"x" * size_bytes), purpose="batch")
        number = size_bytes // CHUNK_BYTES
        content._pieces["default", file.id][number] = b"y" * 10
        with pytest.raises((InternalServerError, APIConnectionError, httpx.HTTPError)) as told:
            await client.files.content(file.id)
        assert (number == 0) == isinstance(told.value, InternalServerError)


@pytest.mark.parametrize("more", [1, CHUNK_BYTES, 20 * CHUNK_BYTES])
async def test_too_many_bytes_are_refused(client: AsyncOpenAI, content: MemoryFileContent, more: int) -> None:
    """The answer says the bound, and nothing is kept of what came."""
    with pytest.raises(APIStatusError) as refused:
        await client.files.create(file=("in.jsonl", b"x" * (BYTES_MAX + more)), purpose="batch")
    assert refused.value.status_code == 413
    assert "over the limit of" in refused.value.message
    assert not [pieces for pieces in content._pieces.values() if pieces]


async def test_pages_and_purposes(client: AsyncOpenAI) -> None:
    """The newest first unless asked otherwise; a page goes on behind a file that was deleted meanwhile."""
    made = [(await client.files.create(file=(f"{name}.jsonl", b"{}"), purpose="batch")).id for name in "abc"]
    assert [file.id async for file in client.files.list(limit=2)] == made[::-1]
    assert [file.id for file in (await client.files.list(order="asc", limit=2)).data] == made[:2]
    assert (await client.files.list(purpose="batch_output")).data == []
    await client.files.delete(made[1])
    assert [file.id for file in (await client.files.list(after=made[1])).data] == [made[0]]
    with pytest.raises(BadRequestError):
        await client.files.list(after="file-nobody")


async def test_a_file_ends_with_its_time(
    client: AsyncOpenAI, running: Running, clock: FakeClock, content: MemoryFileContent
) -> None:
    """It is not there from that moment on, and its bytes are destroyed at the next sweep."""
    file = await client.files.create(
        file=("in.jsonl", b"{}"), purpose="batch", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert file.expires_at == file.created_at + 3600
    clock.advance(3600)
    with pytest.raises(NotFoundError):
        await client.files.retrieve(file.id)
    assert (await client.files.list()).data == []
    assert await running.services.files.sweep() == 1
    assert await content.read("default", file.id, 0) is None
    assert json.loads((await running.log("FileDeleted"))[-1].payload or b"")["reason"] == "expired"


async def test_what_a_crash_left_is_swept(running: Running, clock: FakeClock, content: MemoryFileContent) -> None:
    """Pieces that belong to no file are destroyed, once no batch can be at work on them."""
    await content.put("default", "file-orphan", 0, b"x")
    assert await running.services.files.sweep() == 0
    clock.advance(ORPHAN_S + 1)
    assert await running.services.files.sweep() == 1
    assert await content.read("default", "file-orphan", 0) is None


async def test_as_many_files_as_may_be(client: AsyncOpenAI) -> None:
    """The next one is refused, and said what to do about."""
    for _ in range(20):
        await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    with pytest.raises(APIStatusError, match="delete some") as refused:
        await client.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (409, "too_many_files")


async def test_as_many_bytes_as_may_be(
    client: AsyncOpenAI, running: Running, content: MemoryFileContent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that does not fit behind the others is refused once it has come, and nothing of it is kept."""
    monkeypatch.setattr(running.services.files, "limits", FileLimits(bytes_max=BYTES_MAX, owner_bytes_max=10))
    await client.files.create(file=("in.jsonl", b"x" * 6), purpose="batch")
    with pytest.raises(APIStatusError, match="delete some") as refused:
        await client.files.create(file=("in.jsonl", b"x" * (CHUNK_BYTES + 1)), purpose="batch")
    assert (refused.value.status_code, refused.value.code) == (409, "too_many_files")
    await client.files.create(file=("in.jsonl", b"x" * 4), purpose="batch")
    assert sum(len(pieces) for pieces in content._pieces.values()) == 2


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--b--\r\n") -> bytes:
    """A body with the boundary ``b``."""
    written = b""
    for name, filename, value in parts:
        also = "" if filename is None else f'; filename="{filename}"'
        written += f'--b\r\nContent-Disposition: form-data; name="{name}"{also}\r\n\r\n'.encode() + value + b"\r\n"
    return written + end


FILE = ("file", "in.jsonl", b"{}")
PURPOSE = ("purpose", None, b"batch")
EXPIRES = ("expires_after[seconds]", None, b"3600")
FORM = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("body", "content_type", "status", "param"),
    [
        (b"{}", "application/json", 415, None),
        (form(FILE, PURPOSE), "multipart/form-data", 415, None),
        (form(FILE), FORM, 400, "purpose"),
        (form(PURPOSE), FORM, 400, "file"),
        (form(FILE, FILE, PURPOSE), FORM, 400, "file"),
        (form(FILE, PURPOSE, PURPOSE), FORM, 400, "purpose"),
        (form(FILE, ("purpose", None, b"vision")), FORM, 400, "purpose"),
        (form(FILE, PURPOSE, ("colour", None, b"red")), FORM, 400, "colour"),
        (form(FILE, PURPOSE, ("expires_after[seconds]", None, b"9")), FORM, 400, "expires_after.anchor"),
        (form(FILE, PURPOSE, ("expires_after", None, b"9"), EXPIRES), FORM, 400, "expires_after"),
        (form(FILE, ("purpose", None, b"x" * 5000)), FORM, 400, None),
        (form(("file", "in.jsonl", b""), PURPOSE), FORM, 400, "file"),
        (form(FILE, PURPOSE, end=b""), FORM, 400, None),
        (form(*[(f"f{number}", None, b"") for number in range(40)]), FORM, 400, None),
        (b"--b\r\nX: y\r\n\r\n--b--", FORM, 400, None),
        (b"--b\r\nContent-Disposition: form-data; name=file; filename*=idna''a\r\n\r\n\r\n--b--", FORM, 400, None),
        (b"--b\r\n" + b"x" * 20_000, FORM, 400, None),
        (b"", FORM, 400, None),
    ],
)
async def test_forms_that_are_none(
    running: Running, body: bytes, content_type: str, status: int, param: str | None
) -> None:
    """What is wrong with a form is told, and the connection goes on."""
    answer = await running.http.post("/v1/files", content=body, headers={"content-type": content_type})
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


async def test_a_form_as_others_write_it(client: AsyncOpenAI, running: Running) -> None:
    """Fields in any order, a name with a folder, words before the first boundary and behind the last."""
    body = b"hello\r\n" + form(("file", "/home/ünder/in put.jsonl", b"--b\r--b"), PURPOSE) + b"bye"
    answer = await running.http.post("/v1/files", content=body, headers={"content-type": FORM})
    assert answer.status_code == 200, answer.text
    assert answer.json()["filename"] == "in put.jsonl"
    assert (await client.files.content(answer.json()["id"])).content == b"--b\r--b"


async def test_a_client_that_leaves_while_it_uploads(running: Running, content: MemoryFileContent) -> None:
    """Nothing is kept of half a file."""

    async def half() -> AsyncGenerator[bytes, None]:
        yield (
            form(PURPOSE, end=b"") + b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\n' + b"x" * CHUNK_BYTES
        )
        raise ConnectionError

    with pytest.raises((ConnectionError, httpx.HTTPError)):
        await running.http.post("/v1/files", content=half(), headers={"content-type": FORM})
    found: Any = (await running.http.get("/v1/files")).json()
    assert found["data"] == []
    assert not [pieces for pieces in content._pieces.values() if pieces]
