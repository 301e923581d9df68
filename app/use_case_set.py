"""All use cases of a Manent, as one thing to hand around."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.ports import EventStore, InferenceEngine
from manent.domain.usecases.close_completion import CloseCompletion, CloseInterrupted
from manent.domain.usecases.complete_chat import CompleteChat
from manent.domain.usecases.count_requests import CountRequests
from manent.domain.usecases.create_embeddings import CreateEmbeddings
from manent.domain.usecases.expire_sessions import ExpireSessions
from manent.domain.usecases.follow_log import FollowLog
from manent.domain.usecases.list_sessions import ListSessions
from manent.domain.usecases.live_completions import LiveCompletions
from manent.domain.usecases.manage_models import ManageModels
from manent.domain.usecases.manage_sessions import ManageSessions
from manent.domain.usecases.query_log import QueryLog
from manent.domain.usecases.read_audit_log import ReadAuditLog
from manent.domain.usecases.replays import Replays
from manent.domain.usecases.responses import Responses
from manent.domain.usecases.resume_completion import ResumeCompletion
from manent.domain.usecases.running_reruns import RunningReruns
from manent.domain.usecases.session_messages import SessionMessages
from manent.domain.usecases.stored_completions import StoredCompletions
from manent.domain.usecases.warm_prefixes import WarmPrefixes


@dataclass(frozen=True, slots=True, kw_only=True)
class UseCases:
    """What a Manent can do, and the ports it does it with."""

    store: EventStore
    engine: InferenceEngine
    live: LiveCompletions
    counting: CountRequests
    complete_chat: CompleteChat
    create_embeddings: CreateEmbeddings
    manage_models: ManageModels
    manage_sessions: ManageSessions
    list_sessions: ListSessions
    session_messages: SessionMessages
    expire_sessions: ExpireSessions
    query_log: QueryLog
    audit_log: ReadAuditLog
    follow_log: FollowLog
    replays: Replays
    stored_completions: StoredCompletions
    resume: ResumeCompletion
    responses: Responses
    reruns: RunningReruns
    closing: CloseCompletion
    close_interrupted: CloseInterrupted
    warm_prefixes: WarmPrefixes
