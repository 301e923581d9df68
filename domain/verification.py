"""Whether a rerun says what was recorded: verdicts, what differs, and the event that records a verification. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from manent.domain.generation import FinishReason, Provenance
from manent.domain.output import PartialChoice

NOT_COMPUTING = frozenset({"python"})
"""Of the recorded versions, those that no token depends on."""


class Verdict(StrEnum):
    """What a verification found."""

    EXACT = "exact"
    """The rerun gave the same tokens, text and ends."""
    DIVERGED = "diverged"
    """It parted from the record at a token."""
    NOT_REPLAYABLE = "not_replayable"
    """Nothing can be said, and ``Obstacle`` says why."""


class Obstacle(StrEnum):
    """Why a completion cannot be rerun, or why a rerun would prove nothing."""

    NOT_DETERMINISTIC = "not_deterministic"
    """It was not asked for with ``deterministic``: a batch and a cache had a part in it."""
    NOT_ALONE = "not_alone"
    """It was asked for so, but the record says that it shared a batch or a cache."""
    STILL_RUNNING = "still_running"
    NOTHING_RECORDED = "nothing_recorded"
    """It ended before anything of its answer was recorded."""
    CONTENT_NOT_RECORDED = "content_not_recorded"
    ERASED = "erased"
    MODEL_UNUSABLE = "model_unusable"
    """The registry has no such model any more, or it cannot be loaded."""
    OTHER_PROMPT = "other_prompt"
    """Template and tokenizer are the same files and make other tokens of the messages."""
    OTHER_WEIGHTS = "other_weights"
    OTHER_ADAPTER = "other_adapter"
    OTHER_TOKENIZER = "other_tokenizer"
    OTHER_TEMPLATE = "other_template"
    OTHER_DEVICE = "other_device"
    OTHER_VERSIONS = "other_versions"


TOLERABLE = frozenset({Obstacle.OTHER_DEVICE, Obstacle.OTHER_VERSIONS})
"""What a verifier may ask to look past: the model is the same, and what computes it is not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not as it was when the answer was generated; None is what was not there."""

    obstacle: Obstacle
    name: str
    recorded: str | None
    now: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedChoice:
    """An answer as the log has it; ``finish_reason`` None is one that was cut."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """Where a choice parted from the record: at token ``position``, counted from 0.

    A token is None where that side had ended; both are where the tokens are the same, and text or end are not.
    ``logit_gap`` is how far apart the model's two best tokens lay there, None where that could not be found out.
    """

    choice: int
    position: int
    recorded_token: int | None
    rerun_token: int | None
    logit_gap: float | None = None
    recorded_text: str | None = None
    rerun_text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionVerified:
    """Somebody had a completion generated again and compared with the record.

    It names places and numbers, and no token: it stands when the completion's content is erased. ``partial`` tells
    that the completion had been cut, and what it had said until then was compared. ``provenance`` is what generated
    the rerun, or would have; None where that is not known.
    """

    completion_id: str
    session_id: str | None
    model_id: str | None
    verdict: Verdict
    obstacle: Obstacle | None
    reason: str | None
    choice: int | None
    position: int | None
    logit_gap: float | None
    compared_tokens: int
    partial: bool
    other_versions: bool
    provenance: Provenance | None
    verified_by: str
    verified_at_us: int


def verification_stream(completion_id: str) -> str:
    """The stream of a completion's verifications; it is not the completion's own, which ends with its outcome."""
    return f"verification-{completion_id}"


def differences(then: Provenance, now: Provenance) -> tuple[Difference, ...]:
    """What generates is not what generated, the gravest first; empty where they are the same."""
    pairs: list[tuple[Obstacle, str, str | None, str | None]] = [
        (Obstacle.OTHER_WEIGHTS, "weights", then.weights_digest, now.weights_digest),
        (Obstacle.OTHER_WEIGHTS, "dtype", then.dtype, now.dtype),
        (Obstacle.OTHER_WEIGHTS, "quantization", then.quantization, now.quantization),
        (Obstacle.OTHER_ADAPTER, "adapter", then.adapter_digest, now.adapter_digest),
        (Obstacle.OTHER_TOKENIZER, "tokenizer", then.tokenizer_digest, now.tokenizer_digest),
        (Obstacle.OTHER_TEMPLATE, "template", then.template_digest, now.template_digest),
        (Obstacle.OTHER_DEVICE, "device", then.device, now.device),
    ]
    pairs += [
        (Obstacle.OTHER_VERSIONS, name, then.versions.get(name), now.versions.get(name))
        for name in sorted({*then.versions, *now.versions} - NOT_COMPUTING)
    ]
    found = [
        Difference(obstacle=obstacle, name=name, recorded=before, now=after)
        for obstacle, name, before, after in pairs
        if before != after
    ]
    # An adapter counts as a part of the weights; where it is all that changed, it is what to name.
    return tuple(sorted(found, key=lambda difference: difference.obstacle is not Obstacle.OTHER_ADAPTER))


class Comparison:
    """A rerun, compared with the record as it comes in, token by token."""

    def __init__(self, recorded: Sequence[RecordedChoice]) -> None:
        self._recorded = recorded
        self._compared = [0] * len(recorded)

    @property
    def compared_tokens(self) -> int:
        """How many tokens were found equal, of all choices."""
        return sum(self._compared)

    @property
    def partial(self) -> bool:
        """Whether the record was cut, so that there is nothing to compare behind its end."""
        return any(choice.finish_reason is None for choice in self._recorded)

    @property
    def complete(self) -> bool:
        """Whether all that a cut record has was compared."""
        return self.partial and all(
            count >= len(choice.token_ids) for count, choice in zip(self._compared, self._recorded, strict=True)
        )

    def take(self, index: int, token_ids: Sequence[int]) -> Divergence | None:
        """The next tokens of a choice."""
        then = self._recorded[index]
        for token in token_ids:
            place = self._compared[index]
            if place >= len(then.token_ids):
                return None if self.partial else _parted(index, place, None, token)
            if then.token_ids[place] != token:
                return _parted(index, place, then.token_ids[place], token)
            self._compared[index] += 1
        return None

    def end(self, choices: Sequence[PartialChoice], reasons: Sequence[FinishReason]) -> Divergence | None:
        """The rerun ended: it must have said all that was recorded, in the same words, and for the same reason."""
        for index, (then, now, reason) in enumerate(zip(self._recorded, choices, reasons, strict=True)):
            place = self._compared[index]
            if place < len(then.token_ids):
                return _parted(index, place, then.token_ids[place], None)
            if not self.partial and (then.text, then.finish_reason) != (now.text, reason):
                return _parted(index, place, None, None)
        return None


def _parted(choice: int, position: int, recorded: int | None, rerun: int | None) -> Divergence:
    return Divergence(choice=choice, position=position, recorded_token=recorded, rerun_token=rerun)
