"""What happens, told to whoever measures it: ports for metrics and traces, and the circumstances of a request.

Nobody has to listen. What is told never holds words of a conversation, and no listener may raise into what it watches.
Times are seconds of a monotonic clock, which the listeners bring: one that is set back makes no request shorter.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from enum import StrEnum
from functools import partial
from typing import NamedTuple, Protocol, TypeVar

from manent.domain.caching import CacheUse
from manent.domain.generation import SamplingParameters, Timings, Usage

_log = logging.getLogger("manent.telemetry")

FAILED = "a listener failed"

_Told = TypeVar("_Told")


class Operation(StrEnum):
    """What a model was asked for; the values of OpenTelemetry's ``gen_ai.operation.name``."""

    CHAT = "chat"
    EMBEDDINGS = "embeddings"


class Outcome(StrEnum):
    """How an operation ended. ``refused``: before it was accepted. ``repeated``: told again from the record."""

    GENERATED = "generated"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"
    REPEATED = "repeated"


class Stage(StrEnum):
    """What an operation spends its time on, in this order; ``append`` comes twice, with the request and the outcome."""

    TURN = "turn"
    """Waiting for the session's earlier requests."""
    QUEUE = "queue"
    """Waiting for a place at the model, and for the model to be loaded."""
    CONTEXT = "context"
    """Loading the session, choosing what the model sees, rendering the prompt."""
    PREFILL = "prefill"
    """From the recorded request to the first token."""
    DECODE = "decode"
    """From the first token to the last."""
    APPEND = "append"
    """Committing to the event log."""


class Lap(NamedTuple):
    """A stage with its begin and its end, in seconds of the listeners' clock."""

    stage: Stage
    began_s: float
    ended_s: float


class Timeline:
    """Where the time of one operation goes: laps that follow each other without gaps."""

    __slots__ = ("_last_s", "began_s", "laps", "now_s")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self.began_s = self._last_s = now_s()
        self.laps: list[Lap] = []

    def lap(self, stage: Stage) -> None:
        """What lies behind the last lap was ``stage``."""
        now_s = self.now_s()
        self.laps.append(Lap(stage, self._last_s, now_s))
        self._last_s = now_s


class RequestScope(NamedTuple):
    """The request that work is done for.

    ``parent`` is its client's W3C traceparent, ``span`` its own, where it is traced.
    """

    request_id: str
    correlation_id: str | None = None
    span: str | None = None
    parent: str | None = None


REQUEST: ContextVar[RequestScope | None] = ContextVar("manent_request", default=None)
"""Tasks inherit it from whoever starts them, so that their log lines say for which request they work."""


class RequestEnded(NamedTuple):
    """An HTTP request was answered, a stream to its end. ``route`` is the template, ``error`` the code of a failure."""

    method: str
    route: str
    status: int
    duration_s: float
    error: str | None = None
    scope: RequestScope | None = None


class OperationEnded(NamedTuple):
    """A completion or embeddings came to an end.

    Attributes:
        model_id: the model that it had a place at; None where it never had one.
        error: the code of what went wrong, or the reason of a cancellation.
    """

    operation: Operation
    outcome: Outcome
    operation_id: str
    model_asked: str
    model_id: str | None
    began_s: float
    ended_s: float
    laps: Sequence[Lap]
    error: str | None = None
    session_id: str | None = None
    streamed: bool = False
    usage: Usage | None = None
    timings: Timings | None = None
    cache: CacheUse | None = None
    batch_size_max: int = 0
    finish_reasons: Sequence[str] = ()
    parameters: SamplingParameters | None = None
    scope: RequestScope | None = None


class Telemetry(Protocol):
    """Who is told. Every method returns at once."""

    def now_s(self) -> float:
        """The clock that laps are measured with."""
        ...

    def request_began(self, traceparent: str | None) -> str | None:
        """An HTTP request arrived, with its client's traceparent; the traceparent for what is done for it, if any."""
        ...

    def request_ended(self, ended: RequestEnded) -> None:
        """It was answered."""
        ...

    def operation_ended(self, ended: OperationEnded) -> None:
        """A model's work for somebody ended, well or not."""
        ...

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """One transaction of the event store ended; with ``refused`` the database took nothing of it."""
        ...

    def limited(self, limit: str) -> None:
        """A request was refused by a rate limit. ``limit`` names which, from a small fixed set."""
        ...


class NoTelemetry:
    """Nobody listens, and no time is taken."""

    def now_s(self) -> float:
        """See ``Telemetry.now_s``."""
        return 0.0

    def request_began(self, traceparent: str | None) -> str | None:
        """See ``Telemetry.request_began``."""
        return None

    def request_ended(self, ended: RequestEnded) -> None:
        """See ``Telemetry.request_ended``."""

    def operation_ended(self, ended: OperationEnded) -> None:
        """See ``Telemetry.operation_ended``."""

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """See ``Telemetry.committed``."""

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``."""


NO_TELEMETRY = NoTelemetry()


class AllTelemetry:
    """Tells several, and keeps what goes wrong with one of them from the others and from the work.

    ``now_s`` is the clock of all of them.
    """

    def __init__(self, *listeners: Telemetry, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self._listeners = listeners
        self._of_beginnings = [listener.request_began for listener in listeners]
        self._of_requests = [listener.request_ended for listener in listeners]
        self._of_operations = [listener.operation_ended for listener in listeners]
        self._of_limits = [listener.limited for listener in listeners]

    def request_began(self, traceparent: str | None) -> str | None:
        """See ``Telemetry.request_began``; the first traceparent that a listener has."""
        found = None
        for began in self._of_beginnings:
            try:
                found = found or began(traceparent)
            except Exception:  # noqa: BLE001 (the boundary, as in _tell)
                _log.exception(FAILED)
        return found

    def request_ended(self, ended: RequestEnded) -> None:
        """See ``Telemetry.request_ended``."""
        _tell(self._of_requests, ended)

    def operation_ended(self, ended: OperationEnded) -> None:
        """See ``Telemetry.operation_ended``."""
        _tell(self._of_operations, ended)

    def committed(self, appends: int, duration_s: float, *, refused: bool) -> None:
        """See ``Telemetry.committed``."""
        _tell([partial(listener.committed, appends, refused=refused) for listener in self._listeners], duration_s)

    def limited(self, limit: str) -> None:
        """See ``Telemetry.limited``."""
        _tell(self._of_limits, limit)


def _tell(listeners: Sequence[Callable[[_Told], None]], told: _Told) -> None:
    """Call each; what one of them raises is logged, and nobody else's business."""
    for listener in listeners:
        try:
            listener(told)
        except Exception:  # noqa: BLE001 (the boundary; what listens may be a plugin)
            _log.exception(FAILED)
