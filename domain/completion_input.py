"""What a completion was asked to go on from, as its CompletionRequested has it: a context, messages, or a prompt."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.commitments import SaltedDigest
from manent.domain.generation import Truncation
from manent.domain.made_often import made_often
from manent.domain.messages import Message, Role
from manent.domain.prompts import TextPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class DroppedMessages:
    """Messages in a row that the model does not see, from the first to the last of ``count``."""

    first_message_id: str
    last_message_id: str
    count: int


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class ContextUsed:
    """Which stored messages the model sees, in order, and which were left out to fit its window."""

    message_ids: tuple[str, ...]
    dropped: DroppedMessages | None
    truncation: Truncation


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class InputMessage:
    """A message of a completion without a session: its content where that is recorded, and a commitment to it.

    ``digest`` commits to ``Message.committed_bytes``.
    """

    role: Role
    digest: SaltedDigest
    content: Message | None


@dataclass(frozen=True, slots=True, kw_only=True)
class InputPrompt:
    """A prompt that was continued as it stands: its content where that is recorded, and a commitment to its text.

    ``digest`` commits to the UTF-8 bytes of the text, which are what the tokens say where only those were given.
    """

    digest: SaltedDigest
    content: TextPrompt | None
