"""What analysts want of the events, as views in DuckDB's SQL; docs/reference/export-schema.md describes them.

A payload is parsed once for each row, into the members that are named here; members that an event has not are NULL, as
all are once a payload was erased. Headers stay, so what they tell is taken from them: times, sessions, versions.
"""

from __future__ import annotations

_USAGE = '"usage": {"prompt_tokens": "BIGINT", "completion_tokens": "BIGINT", "cached_tokens": "BIGINT"}'
_CONTENT = '[{"text": "VARCHAR", "type": "VARCHAR"}]'
_IMAGES = '[{"digest": "VARCHAR", "media_type": "VARCHAR", "width": "INTEGER", "height": "INTEGER"}]'
_MESSAGE = f"""{{"message_id": "VARCHAR", "role": "VARCHAR", "name": "VARCHAR", "tool_call_id": "VARCHAR",
    "tool_calls": "JSON", "images": {_IMAGES}, "content": {_CONTENT}}}"""
# The part of a stream's name behind the first hyphen: session-<id>, completion-<id>.
_SESSION = "CASE WHEN starts_with(stream_id, 'session-') THEN substr(stream_id, 9) END"

_OUTCOMES = "\n  UNION ALL\n".join(
    f"""  SELECT tenant, position, recorded_at, '{outcome}' AS outcome, from_json(payload, '{{
    "completion_id": "VARCHAR", "model_id": "VARCHAR", "message_id": "VARCHAR", "finish_reason": "VARCHAR",
    "code": "VARCHAR", "reason": "VARCHAR", "text": "VARCHAR", {_USAGE},
    "timings": {{"queue_s": "DOUBLE", "prefill_s": "DOUBLE", "decode_s": "DOUBLE"}}, "provenance": "JSON"
  }}') AS said FROM events WHERE type = '{event_type}'"""  # noqa: S608 (names of our own)
    for outcome, event_type in (
        ("generated", "CompletionGenerated"),
        ("failed", "CompletionFailed"),
        ("cancelled", "CompletionCancelled"),
    )
)

_COMPLETIONS = f"""
WITH requests AS (
  SELECT *, from_json(payload, '{{
    "completion_id": "VARCHAR", "model_asked": "VARCHAR", "model_id": "VARCHAR", "prompt_tokens": "BIGINT",
    "stream": "BOOLEAN", "user": "VARCHAR", "metadata": "JSON", "context": {{"truncation": "VARCHAR"}},
    "parameters": {{"temperature": "DOUBLE", "top_p": "DOUBLE", "max_tokens": "BIGINT", "seed": "BIGINT",
                    "stop": ["VARCHAR"]}}
  }}') AS asked, from_json(payload, '{{"parameters": "JSON"}}').parameters AS all_parameters
  FROM events WHERE type = 'CompletionRequested'
), outcomes AS (
{_OUTCOMES}
)
SELECT
  asked.completion_id AS completion_id,
  requests.tenant AS tenant,
  requests.actor AS actor,
  {_SESSION} AS session_id,
  requests.request_id AS request_id,
  asked.model_asked AS model_asked,
  coalesce(outcomes.said.model_id, asked.model_id) AS model_id,
  requests.recorded_at AS requested_at,
  outcomes.recorded_at AS ended_at,
  outcomes.outcome AS outcome,
  outcomes.said.finish_reason AS finish_reason,
  outcomes.said.code AS error_code,
  outcomes.said.reason AS reason,
  coalesce(outcomes.said.usage.prompt_tokens, asked.prompt_tokens) AS prompt_tokens,
  outcomes.said.usage.completion_tokens AS completion_tokens,
  outcomes.said.usage.cached_tokens AS cached_tokens,
  outcomes.said.timings.queue_s AS queue_s,
  outcomes.said.timings.prefill_s AS prefill_s,
  outcomes.said.timings.decode_s AS decode_s,
  asked.parameters.temperature AS temperature,
  asked.parameters.top_p AS top_p,
  asked.parameters.max_tokens AS max_tokens,
  asked.parameters.seed AS seed,
  asked.parameters.stop AS stop,
  all_parameters AS parameters,
  asked.stream AS streamed,
  asked.context.truncation AS truncation,
  asked.user AS "user",
  asked.metadata AS metadata,
  outcomes.said.message_id AS message_id,
  outcomes.said.text AS text,
  outcomes.said.provenance AS provenance,
  requests.position AS requested_position,
  outcomes.position AS ended_position
FROM requests LEFT JOIN outcomes
  ON outcomes.tenant = requests.tenant AND outcomes.said.completion_id = asked.completion_id
"""  # noqa: S608 (text of our own)

_SPOKEN = """
    said.message_id AS message_id, said.role AS role, said.name AS name,
    array_to_string(list_transform(said.content, lambda part: coalesce(part.text, '')), '') AS text,
    said.tool_calls AS tool_calls, said.tool_call_id AS tool_call_id, said.images AS images"""

_MESSAGES = f"""
SELECT tenant, session_id, version, {_SPOKEN}, recorded_at AS appended_at, appended_by, completion_id, position
FROM (
  SELECT tenant, {_SESSION} AS session_id, stream_version AS version, recorded_at, position,
    whole.message AS said, whole.appended_by AS appended_by, whole.completion_id AS completion_id
  FROM (
    SELECT *, from_json(payload, '{{"message": {_MESSAGE}, "appended_by": "VARCHAR", "completion_id": "VARCHAR"}}')
      AS whole FROM events WHERE type = 'MessageAppended'
  )
  UNION ALL
  SELECT tenant, {_SESSION} AS session_id, stream_version AS version, recorded_at, position,
    unnest(whole.messages) AS said, whole.replaced_by AS appended_by, NULL AS completion_id
  FROM (
    SELECT *, from_json(payload, '{{"messages": [{_MESSAGE}], "replaced_by": "VARCHAR"}}') AS whole
    FROM events WHERE type = 'SystemPromptReplaced'
  )
)
"""  # noqa: S608 (text of our own)

_SESSIONS = f"""
WITH starts AS (
  SELECT *, {_SESSION} AS session_id, from_json(payload, '{{
    "owner": "VARCHAR", "metadata": "JSON", "ttl_s": "BIGINT",
    "parent": {{"session_id": "VARCHAR", "version": "BIGINT"}}
  }}') AS said FROM events WHERE type = 'SessionStarted'
), changes AS (
  SELECT tenant, stream_id, arg_max(from_json(payload, '{{"metadata": "JSON", "ttl_s": "BIGINT"}}'), position) AS said
  FROM events WHERE type = 'SessionMetadataChanged' GROUP BY tenant, stream_id
), ends AS (
  SELECT tenant, stream_id, arg_max(ending, position) AS status, max(recorded_at) AS ended_at FROM (
    SELECT tenant, stream_id, position, recorded_at, 'expired' AS ending FROM events WHERE type = 'SessionExpired'
    UNION ALL
    SELECT tenant, stream_id, position, recorded_at, 'deleted' AS ending FROM events WHERE type = 'SessionDeleted'
  ) GROUP BY tenant, stream_id
)
SELECT
  starts.tenant AS tenant,
  session_id,
  coalesce(ends.status, 'open') AS status,
  starts.said.owner AS owner,
  CASE WHEN changes.said IS NULL THEN starts.said.metadata ELSE changes.said.metadata END AS metadata,
  CASE WHEN changes.said IS NULL THEN starts.said.ttl_s ELSE changes.said.ttl_s END AS ttl_s,
  starts.said.parent.session_id AS parent_session_id,
  starts.said.parent.version AS parent_version,
  starts.recorded_at AS started_at,
  ends.ended_at AS ended_at,
  starts.position AS position
FROM starts
LEFT JOIN changes ON changes.tenant = starts.tenant AND changes.stream_id = starts.stream_id
LEFT JOIN ends ON ends.tenant = starts.tenant AND ends.stream_id = starts.stream_id
"""  # noqa: S608 (text of our own)

VIEWS = {"completions": _COMPLETIONS, "messages": _MESSAGES, "sessions": _SESSIONS}
"""Each view's name and the SELECT that it stands for, over the table ``events``."""
