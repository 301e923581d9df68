"""Files over HTTP: uploaded as they come in, listed, read piece by piece, deleted."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from sanic import HTTPResponse

from manent.adapters.http.answers import members_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.multipart import PartBegins, boundary_of, read_parts
from manent.adapters.http.query import IntQuery, QueryParameter, TextQuery
from manent.adapters.http.request_log import log_stream
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, STORE_ERRORS, Route
from manent.adapters.http.stored import page_members
from manent.adapters.http.validation import validated
from manent.adapters.http.wire_files import File, FileDeleted, FileForm, FileList
from manent.domain.access import Scope
from manent.domain.files import FileKept
from manent.domain.usecases.manage_files import FileQuery, Upload

FORM_TYPE = "multipart/form-data"
CONTENT_TYPE = "application/octet-stream"
FIELD_BYTES_MAX = 4 * 1024
OVERHEAD_BYTES_MAX = 64 * 1024
"""What a form may have around its file."""

NESTED = re.compile(r"expires_after\[(anchor|seconds)\]")

FILES_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="purpose", says="only those for this", choices=("batch", "batch_output")),
    TextQuery(name="after", says="last_id of the page before"),
    IntQuery(name="limit", says="how many to return", minimum=1, maximum=10_000, default=10_000),
    TextQuery(name="order", says="asc begins with the oldest", choices=("asc", "desc"), default="desc"),
)


async def create_file(exchange: Exchange) -> HTTPResponse:
    """Keep a file; its pieces are written while it comes in."""
    request, files = exchange.request, exchange.services.files
    boundary = boundary_of(request.headers.get("content-type"))
    upload = await files.begin(exchange.principal)
    finished = False
    try:
        async with aclosing(request.body_pieces(files.limits.bytes_max + OVERHEAD_BYTES_MAX)) as body:
            try:
                filename, fields = await _received(body, boundary, upload)
            except Exception:
                async for _ in body:  # what is left: a client reads the answer only after it has sent everything
                    pass
                raise
        form = validated(FileForm, _members(fields))
        kept = await files.finish(
            exchange.principal,
            upload,
            filename=filename,
            purpose=form.purpose,
            expires_after_s=None if form.expires_after is None else form.expires_after.seconds,
            request_id=request.request_id,
        )
        finished = True
    finally:
        if not finished:
            await upload.abandon()
    return members_answer(file_members(kept))


async def _received(
    body: AsyncGenerator[bytes, None], boundary: bytes, upload: Upload
) -> tuple[str, dict[str, bytearray]]:
    """The file's name and the other fields, once the file is written."""
    filename: str | None = None
    fields: dict[str, bytearray] = {}
    field: bytearray | None = None
    async with aclosing(read_parts(body, boundary)) as parts:
        async for part in parts:
            if isinstance(part, PartBegins):
                if part.name in fields or (part.name == "file" and filename is not None):
                    raise RequestRefused(
                        "invalid_value", f"the form has '{part.name[:80]}' twice", param=part.name[:80]
                    )
                field = None
                if part.name == "file":
                    filename = part.filename or "file.jsonl"
                else:
                    field = fields[part.name] = bytearray()
            elif field is None:
                await upload.write(part.data)
            else:
                field += part.data
                if len(field) > FIELD_BYTES_MAX:
                    raise RequestRefused("invalid_value", f"a field of the form has more than {FIELD_BYTES_MAX} bytes")
    if filename is None:
        raise RequestRefused("missing_required_parameter", "Missing required parameter: 'file'.", param="file")
    return filename, fields


def _members(fields: dict[str, bytearray]) -> dict[str, Any]:
    """The fields as JSON would have them; ``expires_after[seconds]`` is a member of an object, and a number."""
    members: dict[str, Any] = {}
    for name, value in fields.items():
        text = value.decode("utf-8", "replace")
        nested = NESTED.fullmatch(name)
        if nested is None:
            members[name] = text
        else:
            number = int(text) if nested[1] == "seconds" and re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) else text
            expiry = members.setdefault("expires_after", {})
            if not isinstance(expiry, dict):
                raise RequestRefused(
                    "invalid_value", "the form has 'expires_after' and members of it", param="expires_after"
                )
            expiry[nested[1]] = number
    return members


async def list_files(exchange: Exchange) -> HTTPResponse:
    """A page of one's own, the newest first unless asked otherwise."""
    query = exchange.query
    page = await exchange.services.files.page(
        exchange.principal,
        FileQuery(
            purpose=query["purpose"], after=query["after"], limit=query["limit"], descending=query["order"] == "desc"
        ),
    )
    return members_answer(page_members([file_members(kept) for kept in page.files], has_more=page.has_more))


async def retrieve_file(exchange: Exchange, file_id: str) -> HTTPResponse:
    """What is known of a file."""
    return members_answer(file_members(await exchange.services.files.get(exchange.principal, file_id)))


async def retrieve_file_content(exchange: Exchange, file_id: str) -> None:
    """The bytes of a file, each piece once the client has read what went before; a client that leaves ends it."""
    request, files = exchange.request, exchange.services.files
    kept = await files.get(exchange.principal, file_id)
    pieces = files.read(kept)
    first = await anext(pieces)  # what is wrong with it can still be told
    request.is_stream = True
    headers = {"content-length": str(kept.added.size_bytes), "content-disposition": "attachment"}
    response = cast("HTTPResponse", await request.respond(status=200, headers=headers, content_type=CONTENT_TYPE))
    outcome = "client_disconnected"
    try:
        async with aclosing(pieces):
            await response.send(first)
            async for piece in pieces:
                await response.send(piece)
        await response.send(b"", end_stream=True)
        outcome = "done"
    except BaseException:
        request.close_after_answer()
        request.break_off()
        raise
    finally:
        log_stream(request, outcome)


async def delete_file(exchange: Exchange, file_id: str) -> HTTPResponse:
    """Destroy a file; its events stay in the log."""
    await exchange.services.files.delete(exchange.principal, file_id, request_id=exchange.request.request_id)
    return members_answer({"id": file_id, "object": "file", "deleted": True})


def file_members(kept: FileKept) -> dict[str, Any]:
    """A file as the wire has it, a ``File``."""
    added = kept.added
    return {
        "id": added.file_id,
        "object": "file",
        "bytes": added.size_bytes,
        "created_at": added.added_at_us // 1_000_000,
        "expires_at": None if added.expires_at_us is None else added.expires_at_us // 1_000_000,
        "filename": added.filename,
        "purpose": added.purpose,
        "status": "processed",
        "sha256": added.sha256,
    }


_READING = ("unknown_parameter", "invalid_type", "invalid_value", "log_corrupt", *STORE_ERRORS)
_ONE = (*_READING, "file_not_found")
_FILE = "/files/<file_id:str>"

FILE_ROUTES: Sequence[Route] = (
    Route(
        name="createFile",
        method="POST",
        path="/files",
        handler=create_file,
        summary="Upload a file, for batches",
        tag="Files",
        files=(FORM_TYPE,),
        reads_body=True,
        answer=File,
        errors=(*BODY_ERRORS, *BODY_LIMITS, "file_too_large", "too_many_files", *STORE_ERRORS),
        scope=Scope.CHAT,
    ),
    Route(
        name="listFiles",
        method="GET",
        path="/files",
        handler=list_files,
        summary="List files",
        tag="Files",
        answer=FileList,
        query=FILES_QUERY,
        errors=_READING,
        scope=Scope.CHAT,
    ),
    Route(
        name="retrieveFile",
        method="GET",
        path=_FILE,
        handler=retrieve_file,
        summary="Retrieve a file's facts",
        tag="Files",
        answer=File,
        errors=_ONE,
        scope=Scope.CHAT,
    ),
    Route(
        name="downloadFile",
        method="GET",
        path=f"{_FILE}/content",
        handler=retrieve_file_content,
        summary="Download a file",
        tag="Files",
        content_type=CONTENT_TYPE,
        errors=_ONE,
        scope=Scope.CHAT,
    ),
    Route(
        name="deleteFile",
        method="DELETE",
        path=_FILE,
        handler=delete_file,
        summary="Delete a file; its events stay in the log",
        tag="Files",
        answer=FileDeleted,
        errors=_ONE,
        scope=Scope.CHAT,
    ),
)
