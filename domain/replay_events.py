"""What analysts do, as events of the log: see ``manent.domain.events``, which has the rest of a session's."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.generation import RequestedParameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """Where a session branched off: another session, as it stood at a version."""

    session_id: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunStarted:
    """The assistant's turns of ``source`` that follow ``from_version`` are to be generated again in this session.

    ``source`` names the original as it stood when the rerun was asked for. ``model_asked`` None is the model that
    answered each turn; what ``parameters`` leaves open is as it was recorded. The rerun's completions carry
    ``rerun_id`` as their correlation id.
    """

    session_id: str
    rerun_id: str
    source: Fork
    from_version: int
    model_asked: str | None
    parameters: RequestedParameters
    turns: int
    started_by: str
    started_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RerunEnded:
    """The rerun is over: ``completed``, ``failed`` (``code`` says why), or ``interrupted`` by its server's end."""

    session_id: str
    rerun_id: str
    status: str
    turns_done: int
    code: str | None
    reason: str | None
    ended_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionImported:
    """The first ``messages`` were read from a file that ``imported_by`` brought; nothing here vouches for them.

    ``file_sha256`` is in hex. ``origin``, in the log ``origin_log_id``, is what a file of ``events`` says of itself.
    """

    session_id: str
    format: str
    file_sha256: str
    file_bytes: int
    origin_log_id: str | None
    origin: Fork | None
    events: int
    messages: int
    imported_by: str
    imported_at_us: int
