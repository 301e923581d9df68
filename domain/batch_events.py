"""What happens to files and batches, as events of the log; see ``manent.domain.files`` and ``manent.domain.batches``.

The bytes of files stand beside the log: an event holds their SHA-256.
"""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.access import ModelAccess
from manent.domain.limits import RequestLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class FileAdded:
    """A file is there, whole: ``size_bytes`` in ``chunks`` pieces, with this SHA-256 (hex)."""

    file_id: str
    owner: str
    filename: str
    purpose: str
    size_bytes: int
    sha256: str
    chunks: int
    expires_at_us: int | None
    added_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDeleted:
    """A file is no more, and its bytes are destroyed; ``reason`` is ``deleted`` or ``expired``."""

    file_id: str
    reason: str
    deleted_by: str
    deleted_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchGrant:
    """In whose name the lines of a batch are answered, beside its owner: the credential that made it, and its rights.

    A key is looked up anew for every line; tokens, which nobody can look up, have the rights that they had.
    """

    credential_id: str | None
    scopes: tuple[str, ...]
    models: ModelAccess
    limits: RequestLimits | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCreated:
    """The lines of ``input_file_id`` are to be answered until ``expires_at_us``, into two files whose ids are fixed."""

    batch_id: str
    owner: str
    grant: BatchGrant
    input_file_id: str
    output_file_id: str
    error_file_id: str
    endpoint: str
    completion_window: str
    metadata: dict[str, str]
    output_expires_after_s: int | None
    expires_at_us: int
    created_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTaken:
    """A worker works on the batch from now on, and whoever did before does not."""

    batch_id: str
    worker: str
    taken_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchValidated:
    """Every line is a request that can be tried; there are ``total``."""

    batch_id: str
    total: int
    validated_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchMistake:
    """What is wrong with a line of an input file, counted from 1, or with the whole of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRefused:
    """The batch failed: its input file is not what it should be."""

    batch_id: str
    mistakes: tuple[BatchMistake, ...]
    refused_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchLinesEnded:
    """These lines of the input, by their numbers from 1, are answered: so many well, the others with errors.

    The answers are the next ``output_chunks`` and ``error_chunks`` pieces of the two files, with these sizes.
    """

    batch_id: str
    lines: tuple[int, ...]
    completed: int
    output_chunks: int
    output_bytes: int
    error_chunks: int
    error_bytes: int
    ended_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCancelRequested:
    """No further line is begun; what is answered stays."""

    batch_id: str
    cancelled_by: str
    cancelled_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchFinalizing:
    """No further line is tried, and the files are closed next; ``expired`` where some lines were left at the end."""

    batch_id: str
    expired: bool
    finalizing_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchEnded:
    """The batch is over: ``completed``, ``expired`` or ``cancelled``; a file id is None where the file has no line.

    With ``mistakes`` it is ``failed``: its input was deleted after its lines had begun.
    """

    batch_id: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    mistakes: tuple[BatchMistake, ...]
    ended_at_us: int


FileEvent = FileAdded | FileDeleted
BatchEvent = (
    BatchCreated
    | BatchTaken
    | BatchValidated
    | BatchRefused
    | BatchLinesEnded
    | BatchCancelRequested
    | BatchFinalizing
    | BatchEnded
)


def file_stream(file_id: str) -> str:
    """The stream of a file."""
    return f"file-{file_id}"


def batch_stream(batch_id: str) -> str:
    """The stream of a batch."""
    return f"batch-{batch_id}"
