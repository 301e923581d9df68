"""The routes of replays, a part of the one table: forks, reruns, comparisons, exports, imports, what a model saw."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import replay_context, replay_diff, replay_export, replay_fork, replay_import, replay_verify
from manent.adapters.http import wire_replay as wire
from manent.adapters.http import wire_responses as answers
from manent.adapters.http.route import BODY_ERRORS, BODY_LIMITS, ENGINE_ERRORS, STORE_ERRORS, Route
from manent.adapters.http.wire_verify import CompletionVerification, VerifyRequest
from manent.domain.access import Scope

READING = ("unknown_parameter", "invalid_value", "session_not_found", "session_expired", "log_corrupt", *STORE_ERRORS)
STARTING = (*BODY_LIMITS, "session_already_exists", "idempotency_conflict")

REPLAY_ROUTES: Sequence[Route] = (
    Route(
        name="forkSession",
        method="POST",
        path="/sessions/<session_id:str>/fork",
        handler=replay_fork.fork_session,
        scope=Scope.SESSIONS,
        summary="Start a session that shares another's past",
        tag="Replay",
        takes=("Idempotency-Key",),
        body=wire.ForkRequest,
        body_required=False,
        answer=answers.Session,
        status=201,
        errors=(*BODY_ERRORS, *READING, *STARTING),
    ),
    Route(
        name="rerunSession",
        method="POST",
        path="/sessions/<session_id:str>/rerun",
        handler=replay_fork.rerun_session,
        scope=Scope.CHAT,
        summary="Have the answers behind a version generated again, in a fork and in the background",
        tag="Replay",
        takes=("Idempotency-Key",),
        body=wire.RerunRequest,
        answer=wire.Rerun,
        status=202,
        errors=(*BODY_ERRORS, *READING, *STARTING, "model_not_found", "too_many_reruns", "shutting_down"),
    ),
    Route(
        name="retrieveRerun",
        method="GET",
        path="/sessions/<session_id:str>/rerun",
        handler=replay_fork.retrieve_rerun,
        scope=Scope.SESSIONS,
        summary="How far a rerun is",
        tag="Replay",
        answer=wire.Rerun,
        errors=(*READING, "rerun_not_found"),
    ),
    Route(
        name="compareSessions",
        method="GET",
        path="/sessions/<a:str>/diff/<b:str>",
        handler=replay_diff.compare_sessions,
        scope=Scope.SESSIONS,
        summary="Compare two sessions turn by turn",
        tag="Replay",
        answer=wire.SessionDiff,
        query=replay_diff.DIFF_QUERY,
        errors=("invalid_type", *READING),
    ),
    Route(
        name="exportSession",
        method="GET",
        path="/sessions/<session_id:str>/export",
        handler=replay_export.export_session,
        scope=Scope.SESSIONS,
        summary="Export a session: events as JSON Lines, OpenAI's messages, or Markdown",
        tag="Replay",
        content_type=replay_export.NDJSON_TYPE,
        other_types=replay_export.OTHER_TYPES,
        answer=answers.Event,
        query=replay_export.EXPORT_QUERY,
        errors=("invalid_type", *READING),
    ),
    Route(
        name="importSession",
        method="POST",
        path="/sessions/import",
        handler=replay_import.import_session,
        scope=Scope.SESSIONS,
        summary="Start a session with the conversation of an exported file",
        tag="Replay",
        takes=("Idempotency-Key",),
        files=replay_import.FILE_TYPES,
        answer=answers.Session,
        query=replay_import.IMPORT_QUERY,
        status=201,
        errors=("unknown_parameter", "invalid_value", "import_refused", "event_too_large", *STARTING, *STORE_ERRORS),
    ),
    Route(
        name="retrieveCompletionContext",
        method="GET",
        path="/chat/completions/<completion_id:str>/context",
        handler=replay_context.retrieve_context,
        scope=Scope.CHAT,
        summary="What exactly the model saw, and whether it still renders so",
        tag="Replay",
        answer=wire.CompletionContext,
        errors=(*READING, "completion_not_found", "content_not_recorded", "generation_failed", "engine_busy"),
    ),
    Route(
        name="verifyCompletion",
        method="POST",
        path="/chat/completions/<completion_id:str>/verify",
        handler=replay_verify.verify_completion,
        scope=Scope.CHAT,
        only_reads=True,
        summary="Generate a deterministic completion again, and compare it with the record token by token",
        tag="Replay",
        body=VerifyRequest,
        body_required=False,
        answer=CompletionVerification,
        errors=(
            *BODY_ERRORS,
            *BODY_LIMITS,
            *READING,
            "completion_not_found",
            *ENGINE_ERRORS,
        ),
    ),
)
