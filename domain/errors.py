"""What can go wrong, in the domain's words. HTTP statuses and exit codes are the adapters' business."""

from __future__ import annotations


class DomainError(Exception):
    """An expected failure.

    Attributes:
        code: stable name of the failure; clients and the event log rely on it.
        param: the request parameter at fault, where there is one.
        retry_after_s: when trying again makes sense; None where it does not.
    """

    code = "error"
    param: str | None = None
    retry_after_s: float | None = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        if param is not None:
            self.param = param
        if retry_after_s is not None:
            self.retry_after_s = retry_after_s


class InvalidValue(DomainError):
    """A value that no state of the system would accept."""

    code = "invalid_value"


class ModelNotFound(DomainError):
    """No model of the registry has this id or alias."""

    code = "model_not_found"
    param = "model"


class WrongModelType(DomainError):
    """The model exists, and is for something else: a chat was sent to an embedding model, or the other way round."""

    code = "wrong_model_type"
    param = "model"


class ContextLengthExceeded(DomainError):
    """Prompt and requested output do not fit the model's context window."""

    code = "context_length_exceeded"
    param = "messages"


class SessionNotFound(DomainError):
    """The session was never started, was deleted, or belongs to somebody else: the answer is the same."""

    code = "session_not_found"
    param = "session_id"


class SessionAlreadyExists(DomainError):
    """A session with this id was started before; ids are never reused, also after a deletion."""

    code = "session_already_exists"
    param = "session_id"


class SessionClosed(DomainError):
    """The session was deleted; its id stays taken, because the log keeps its events."""

    code = "session_closed"
    param = "session_id"


class SessionGone(DomainError):
    """The session expired: nobody used it for its time to live. Its events stay in the log."""

    code = "session_expired"
    param = "session_id"


class PreconditionFailed(DomainError):
    """The session is not at a version that the request was made for."""

    code = "precondition_failed"
    param = "If-Match"


class MessageNotFound(DomainError):
    """The conversation as it stands has no such message."""

    code = "message_not_found"
    param = "message_id"


class SessionBusy(DomainError):
    """Another completion of this session is open, and the bound on waiting for it was reached."""

    code = "session_busy"
    param = "session_id"


class HistoryConflict(DomainError):
    """A strict session was sent messages that depart from its stored history."""

    code = "history_conflict"
    param = "messages"


class EventNotFound(DomainError):
    """The log has no such position, or it is another tenant's: the answer is the same."""

    code = "event_not_found"
    param = "position"


class CompletionNotFound(DomainError):
    """The log has no completion with this id, or it is somebody else's: the answer is the same."""

    code = "completion_not_found"
    param = "completion_id"


class ContentNotRecorded(DomainError):
    """The completion is recorded without its words, or they were erased."""

    code = "content_not_recorded"
    param = "completion_id"


class ContentErased(ContentNotRecorded):
    """The completion's words were erased."""


class RerunNotFound(DomainError):
    """The session is no rerun."""

    code = "rerun_not_found"
    param = "session_id"


class TooManyReruns(DomainError):
    """As many reruns as the bound allows are running or waiting already."""

    code = "too_many_reruns"
    retry_after_s = 30.0


class ImportRefused(DomainError):
    """A file that is to be imported is not what it should be; the message names the line."""

    code = "import_refused"


class PermissionDenied(DomainError):
    """The credential lacks a scope."""

    code = "permission_denied"


class VersionConflict(DomainError):
    """The stream moved on since it was read; the caller reads again and decides again."""

    code = "version_conflict"


class IdempotencyConflict(DomainError):
    """An idempotency key was used before, with another request."""

    code = "idempotency_conflict"
    param = "Idempotency-Key"


class StoreUnavailable(DomainError):
    """The event store could not commit: locked, full, broken, or too much is waiting. Nothing was recorded."""

    code = "store_unavailable"
    retry_after_s = 1.0


class LogCorrupt(DomainError):
    """A recorded event is not what its header promises: the log was damaged, and an operator has to look at it."""

    code = "log_corrupt"


class EventTooLarge(DomainError):
    """One event is larger than the log accepts."""

    code = "event_too_large"
    param = "messages"


class LeaseLost(DomainError):
    """Another worker took the subscription over: what the stale one did after that is not recorded."""

    code = "lease_lost"


class ModelLoadError(DomainError):
    """The model's folder is missing, broken, or needs more than the machine has."""

    code = "model_load_failed"
    param = "model"


class InsufficientMemory(DomainError):
    """The model does not fit beside what has to stay in memory; the message says what holds how much."""

    code = "insufficient_memory"
    param = "model"
    retry_after_s = 5.0


class ModelUnavailable(DomainError):
    """The model crashed again and again, or hangs, and is not used for a while."""

    code = "model_unavailable"
    param = "model"


class ModelInUse(DomainError):
    """The model cannot be unloaded: requests use it or wait for it."""

    code = "model_in_use"
    param = "model"


class EngineUnavailable(DomainError):
    """The model's runner crashed, hung or was stopped while it worked on the request."""

    code = "runner_crashed"
    retry_after_s = 1.0


class EngineBusy(DomainError):
    """As many requests as the bound allows are already waiting for the model."""

    code = "engine_busy"
    retry_after_s = 2.0


class DeadlineExceeded(DomainError):
    """The completion did not end within the time that its request or the server allows."""

    code = "deadline_exceeded"
    param = "timeout_s"


class GenerationFailed(DomainError):
    """The engine could not evaluate this request; other requests are not concerned."""

    code = "generation_failed"


class ShuttingDown(DomainError):
    """The server drains: it finishes what it accepted and accepts nothing new."""

    code = "shutting_down"
    retry_after_s = 5.0


class TooManyTails(DomainError):
    """As many readers as the bound allows are following the log already."""

    code = "too_many_tails"
    retry_after_s = 5.0


class CompletionCancelledError(DomainError):
    """The completion was cancelled before it was finished; the log says by whom."""

    code = "cancelled"


class InternalError(DomainError):
    """A defect of Manent itself; the server's log has the details."""

    code = "internal_error"


class RecordedFailure(DomainError):
    """A completion that failed or was cancelled, told again from the log with the code that stands there."""

    code = "generation_failed"

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class StreamPassed(DomainError):
    """What a reader wants to go on from is not kept any more; the completion itself may be in the log."""

    code = "stream_expired"
    param = "Last-Event-ID"
