"""What clients send and get to verify a completion, as pydantic models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from manent.adapters.http.wire import Wire
from manent.adapters.http.wire_responses import Answer


class VerifyRequest(Wire):
    """A request for a verification."""

    other_versions: bool | None = None


class SaidToken(Answer):
    """A token on one side; ``text`` is null where it is not known."""

    token_id: int
    text: str | None


class DivergedAt(Answer):
    """The first token that is not as it was recorded."""

    choice: int
    position: int = Field(description="In the answer's tokens, counted from 0.")
    recorded: SaidToken | None = Field(description="null where the record had ended.")
    rerun: SaidToken | None = Field(
        description="null where the rerun had ended; both are null where the tokens agree and text or end do not."
    )
    logit_gap: float | None = Field(description="How far apart the model's two best tokens lay there, where known.")


class ChangedPart(Answer):
    """Something that is not as it was when the answer was generated."""

    name: str
    recorded: str | None
    now: str | None


class CompletionVerification(Answer):
    """What a rerun said about a completion."""

    id: str = Field(description="Of the completion.")
    object: Literal["chat.completion.verification"] = "chat.completion.verification"
    session_id: str | None
    model: str | None
    verdict: Literal["exact", "diverged", "not_replayable"]
    obstacle: str | None = Field(description="Why it is not replayable, in a word.")
    reason: str | None = Field(description="The same in a sentence.")
    compared_tokens: int = Field(description="How many tokens were found equal, of all choices.")
    partial: bool = Field(description="The completion had been cut; what it had said until then was compared.")
    divergence: DivergedAt | None
    changed: list[ChangedPart]
    position: int = Field(description="Of the CompletionVerified in the log.")
    verified_at: int = Field(description="Seconds since 1970.")
