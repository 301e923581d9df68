"""Responses: OpenAI's noun for a completion that can be asked for again. What one says of itself, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

CHAT_IDS = "chatcmpl-"
TEXT_IDS = "cmpl-"
RESPONSE_IDS = "resp_"
MESSAGE_IDS = "msg_"


class ResponseStatus(StrEnum):
    """How a response stands, in OpenAI's words."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseDetails:
    """What a request for a response says that a completion has no other place for; a part of CompletionRequested.

    ``in_conversation`` tells that its client named the session; otherwise the session is the chain that the response
    begins or goes on with. ``echo`` is JSON text of parameters that are told back as they came: nothing that Manent
    does depends on it.
    """

    previous_response_id: str | None
    in_conversation: bool
    background: bool
    echo: str


def answer_id(completion_id: str) -> str:
    """The id of the message that a completion becomes: known from its beginning, so that a stream can tell it."""
    for prefix in (CHAT_IDS, RESPONSE_IDS, TEXT_IDS):
        if completion_id.startswith(prefix):
            return MESSAGE_IDS + completion_id[len(prefix) :]
    return MESSAGE_IDS + completion_id


def response_of(message_id: str) -> str:
    """The response that becomes a message, if one does: the reverse of ``answer_id``."""
    return RESPONSE_IDS + message_id.removeprefix(MESSAGE_IDS)
