"""Files and batches on the wire, in OpenAI's words."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_requests import Metadata
from manent.adapters.http.wire_responses import Answer


class File(Answer):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"
    sha256: str = Field(description="Of its bytes, in hex; it stands in the log as well.")


class FileList(Answer):
    """A page of files; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Answer):
    """A file is no more."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class ExpiresAfter(Wire):
    """How long files are kept."""

    anchor: Literal["created_at"]
    seconds: int = Field(ge=3600, le=2_592_000)


class BatchRequest(Wire):
    """A batch to make."""

    input_file_id: str = Field(min_length=1, max_length=100, description="A file for the purpose 'batch'.")
    endpoint: str = Field(max_length=100, description="Where every line of it is sent.")
    completion_window: str = Field(max_length=20, description="24h.")
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchError(Answer):
    """What is wrong with an input file; ``line`` counts from 1."""

    code: str
    message: str
    line: int | None
    param: str | None


class BatchErrors(Answer):
    """All that is wrong with an input file, up to a bound."""

    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchRequestCounts(Answer):
    """How many requests there are, and how many are answered, well or not."""

    total: int
    completed: int
    failed: int


class Batch(Answer):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    metadata: dict[str, str] | None


class BatchList(Answer):
    """A page of batches; ``last_id`` goes into ``after`` for the next one."""

    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileForm(Wire):
    """The fields of a form that brings a file, beside the file itself."""

    purpose: str = Field(min_length=1, max_length=100)
    expires_after: ExpiresAfter | None = None
