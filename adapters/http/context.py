"""What the handlers work with: the use cases, the limits, and one request's circumstances."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from manent.adapters.http.chunk_writer import ChunkFrames
from manent.adapters.http.cors import NO_ORIGINS, Origins
from manent.adapters.http.forwarded import NO_PROXIES, TrustedProxies
from manent.adapters.http.hosts import LOOPBACK, HostNames
from manent.adapters.http.principal import Authenticate
from manent.adapters.http.recent_requests import RecentRequests
from manent.adapters.http.request import HttpRequest
from manent.domain.access import Principal
from manent.domain.admission import Priority
from manent.domain.health import Health
from manent.domain.images import ImageReader
from manent.domain.made_often import made_often
from manent.domain.ports import Ids, InferenceEngine
from manent.domain.telemetry import NO_TELEMETRY, Telemetry
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.count_requests import CountRequests
from manent.domain.usecases.create_embeddings import CreateEmbeddings
from manent.domain.usecases.dead_letters import DeadLetters
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.issue_checkpoint import IssueCheckpoint
from manent.domain.usecases.list_sessions import ListSessions
from manent.domain.usecases.manage_batches import ManageBatches
from manent.domain.usecases.manage_files import ManageFiles
from manent.domain.usecases.manage_keys import ManageKeys
from manent.domain.usecases.manage_models import ManageModels
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.manage_webhooks import ManageWebhooks
from manent.domain.usecases.prove_log import ProveLog
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.read_audit_log import ReadAuditLog
from manent.domain.usecases.replays import Replays
from manent.domain.usecases.responses import Responses
from manent.domain.usecases.resume_completion import ResumeCompletion
from manent.domain.usecases.run_middleware import MiddlewareChain
from manent.domain.usecases.session_messages import SessionMessages
from manent.domain.usecases.stored_completions import StoredCompletions

Look = Callable[[], Awaitable[Health]]
Scrape = Callable[[str], tuple[bytes, str]]


class Webhooks(Protocol):
    """What operators do with webhooks."""

    @property
    def manage(self) -> ManageWebhooks:
        """Make, change and remove them."""
        ...

    @property
    def letters(self) -> DeadLetters:
        """What was not taken."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpServices:
    """What the HTTP adapter calls.

    ``health`` looks at everything. ``scrape`` makes the metrics for an Accept header: text, and its media type.
    """

    chat: CompleteChat
    embeddings: CreateEmbeddings
    models: ManageModels
    sessions: ManageSessions
    session_list: ListSessions
    session_messages: SessionMessages
    log: QueryLog
    audit_log: ReadAuditLog
    follow: FollowLog
    replays: Replays
    responses: Responses
    stored: StoredCompletions
    files: ManageFiles
    batches: ManageBatches
    engine: InferenceEngine
    ids: Ids
    images: ImageReader
    resume: ResumeCompletion
    authenticate: Authenticate
    counting: CountRequests
    health: Look
    version: str
    proofs: ProveLog | None = None
    checkpoints: IssueCheckpoint | None = None
    webhooks: Webhooks | None = None
    middleware: MiddlewareChain | None = None
    keys: ManageKeys | None = None
    telemetry: Telemetry = NO_TELEMETRY
    scrape: Scrape | None = None
    recent_requests: RecentRequests = field(default_factory=RecentRequests)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """Whom the server answers, and bounds on what a client may send and on how long anything waits for it.

    ``hosts`` are the names that are answered to, None is any. ``stall_timeout_s`` is how long a stream waits for a
    client that does not read; ``ping_interval_s`` how long a stream stays silent before a comment line keeps it alive;
    ``retry_grace_s`` how long a whole answer goes on for an SDK that lost its connection and tries again by itself.
    ``public`` names parts of the API that need no credential. A WebSocket is pinged every ``websocket_ping_s``, its
    credential judged anew every ``websocket_judge_s``, and closed after ``websocket_idle_s`` without a request.
    """

    hosts: HostNames | None = LOOPBACK
    public: frozenset[str] = frozenset({"docs"})
    origins: Origins = NO_ORIGINS
    proxies: TrustedProxies = NO_PROXIES
    connections_max: int = 1_000
    streams_max: int = 512
    websockets_max: int = 500
    websocket_requests_max: int = 16
    body_bytes_max: int = 16 * 1024 * 1024
    header_bytes_max: int = 16 * 1024
    messages_max: int = 5_000
    header_timeout_s: float = 30.0
    body_timeout_s: float = 60.0
    keep_alive_timeout_s: float = 75.0
    ping_interval_s: float = 4.0
    stall_timeout_s: float = 30.0
    retry_grace_s: float = 10.0
    websocket_idle_s: float = 300.0
    websocket_ping_s: float = 20.0
    websocket_judge_s: float = 5.0
    ready_timeout_s: float = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The API's description as bytes: OpenAPI 3.1, and 3.0 for the page."""

    openapi: bytes
    openapi_3_0: bytes


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One request with who sent it, its checked query parameters, and what answers it.

    ``frames`` is what it is answered with where it came over a WebSocket. ``batch_id`` names the batch where the
    request is a line of one, and nobody waits for its answer.
    """

    request: HttpRequest
    principal: Principal
    services: HttpServices
    limits: HttpLimits
    documents: Documents
    query: Mapping[str, Any] = field(default_factory=dict)
    frames: ChunkFrames | None = None
    batch_id: str | None = None

    def priority(self, asked: str | None) -> Priority:
        """The priority of the work that is done for it: the one that is asked for, but for lines of batches."""
        if self.batch_id is not None:
            return Priority.BACKGROUND
        return Priority.INTERACTIVE if asked is None else Priority(asked)
