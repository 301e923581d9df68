"""Which completions can be rerun: what the log must have of them, and what must be as it was."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.access import Principal
from manent.domain.errors import ContentErased, ContentNotRecorded
from manent.domain.events import CompletionGenerated, CompletionOutcome, CompletionRequested
from manent.domain.generation import Provenance, RenderedPrompt
from manent.domain.messages import Message
from manent.domain.prompts import TextPrompt
from manent.domain.usecases.find_completion import FindCompletion, FoundRequest, SeenMessages
from manent.domain.verification import TOLERABLE, Difference, Obstacle, RecordedChoice, differences


class NotReplayable(Exception):
    """A rerun is not possible, or would prove nothing. ``changed`` and ``made_by`` are what a model told."""

    def __init__(
        self,
        obstacle: Obstacle,
        reason: str,
        *,
        changed: tuple[Difference, ...] = (),
        made_by: Provenance | None = None,
    ) -> None:
        super().__init__(reason)
        self.obstacle = obstacle
        self.reason = reason
        self.changed = changed
        self.made_by = made_by


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayable:
    """All that a rerun needs."""

    requested: CompletionRequested
    made_by: Provenance
    messages: tuple[Message, ...]
    prompt: TextPrompt | None
    choices: tuple[RecordedChoice, ...]


async def replayable(completions: FindCompletion, principal: Principal, found: FoundRequest) -> Replayable:
    """What was recorded of a completion that was asked for as deterministic.

    Raises:
        NotReplayable: it was not, or something of it is missing.
        CompletionNotFound, SessionGone: it is not there for ``principal``.
    """
    requested = found.requested
    missing: NotReplayable | None = None
    seen = SeenMessages(messages=(), dropped=())
    try:
        seen = await completions.seen(principal, found)
    except ContentNotRecorded as error:
        erased = isinstance(error, ContentErased)
        missing = NotReplayable(Obstacle.ERASED if erased else Obstacle.CONTENT_NOT_RECORDED, error.message)
    if not requested.parameters.deterministic:
        raise NotReplayable(
            Obstacle.NOT_DETERMINISTIC,
            "it was not asked for with deterministic: true, so that batch and cache may have had a part in it",
        )
    if missing is not None:
        raise missing
    outcome = await _outcome(completions, found)
    choices = _choices(outcome)
    if not any(choice.token_ids for choice in choices) or outcome.provenance is None:
        raise NotReplayable(Obstacle.NOTHING_RECORDED, "it ended before anything of its answer was recorded")
    cached_tokens = 0 if outcome.usage is None else outcome.usage.cached_tokens
    if outcome.provenance.batch_size_max > requested.parameters.n or cached_tokens:
        raise NotReplayable(Obstacle.NOT_ALONE, "the record says that it shared a batch or a cache with others")
    return Replayable(
        requested=requested, made_by=outcome.provenance, messages=seen.messages, prompt=seen.prompt, choices=choices
    )


def check_unchanged(record: Replayable, prompt: RenderedPrompt, *, other_versions: bool) -> tuple[Difference, ...]:
    """What is not as it was and may be looked past: other software and another device, with ``other_versions``.

    Raises:
        NotReplayable: something else is not as it was.
    """
    if prompt.made_by is None:
        raise NotReplayable(Obstacle.MODEL_UNUSABLE, "its engine does not say what generates")
    changed = differences(record.made_by, prompt.made_by)
    grave = [one for one in changed if not other_versions or one.obstacle not in TOLERABLE]
    if grave:
        told = "; ".join(f"{one.name} was {one.recorded or 'absent'} and is {one.now or 'absent'}" for one in grave)
        raise NotReplayable(grave[0].obstacle, told, changed=changed, made_by=prompt.made_by)
    if not record.requested.prompt_digest.matches(prompt.token_bytes):
        told = "the messages make other tokens than they did"
        raise NotReplayable(Obstacle.OTHER_PROMPT, told, changed=changed, made_by=prompt.made_by)
    return changed


async def _outcome(completions: FindCompletion, found: FoundRequest) -> CompletionOutcome:
    try:
        outcome = await completions.outcome(found)
    except ContentErased as error:
        raise NotReplayable(Obstacle.ERASED, error.message) from error
    if outcome is None:
        raise NotReplayable(Obstacle.STILL_RUNNING, "it has not ended yet")
    return outcome


def _choices(outcome: CompletionOutcome) -> tuple[RecordedChoice, ...]:
    ended = outcome.finish_reason if isinstance(outcome, CompletionGenerated) else None
    return (
        RecordedChoice(text=outcome.text or "", token_ids=outcome.token_ids or (), finish_reason=ended),
        *(
            RecordedChoice(text=one.text or "", token_ids=one.token_ids or (), finish_reason=one.finish_reason)
            for one in outcome.alternatives
        ),
    )
