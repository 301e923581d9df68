"""Responses: OpenAI's noun for a completion that can be asked for again. What one says of itself, and how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

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


def is_response_id(completion_id: str) -> bool:
    """Whether a completion was asked for as a response."""
    return completion_id.startswith(RESPONSE_IDS)


def answer_id(response_id: str) -> str:
    """The id of the message that a response becomes: known from its beginning, so that its items have theirs."""
    return MESSAGE_IDS + response_id.removeprefix(RESPONSE_IDS)


def response_of(message_id: str) -> str:
    """The response that becomes a message, if one does: the reverse of ``answer_id``."""
    return RESPONSE_IDS + message_id.removeprefix(MESSAGE_IDS)
