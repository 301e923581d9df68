"""What exactly the model saw: a completion's messages and its prompt, rendered again and compared with the record."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from manent.domain.access import Principal
from manent.domain.errors import (
    ContentErased,
    DomainError,
    EngineUnavailable,
    InvalidValue,
    ModelLoadError,
    ModelNotFound,
)
from manent.domain.events import CompletionRequested
from manent.domain.generation import Provenance
from manent.domain.messages import Message
from manent.domain.output_shape import OutputShape
from manent.domain.ports import InferenceEngine
from manent.domain.prompts import ExplainedPrompt
from manent.domain.records import EventHeader
from manent.domain.usecases.find_completion import FindCompletion, FoundRequest, SeenMessages


class PromptVerdict(StrEnum):
    """What rendering the prompt again says about the recorded commitment to its tokens."""

    MATCHES = "matches"
    DIFFERS = "differs"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionContext:
    """``messages`` in the order in which the model saw them, and ``dropped`` to fit its window.

    ``prompt`` is today's rendering, with ``changed`` naming what is not as it was when the answer was generated
    (weights, tokenizer, template; empty where there is no answer to compare with). Without it ``problem`` says why.
    """

    requested: CompletionRequested
    header: EventHeader
    messages: tuple[Message, ...]
    dropped: tuple[Message, ...]
    verdict: PromptVerdict
    prompt: ExplainedPrompt | None
    changed: tuple[str, ...]
    problem: DomainError | None


class ShowContext:
    """Finds a completion by its id and renders its prompt again."""

    def __init__(self, *, find: FindCompletion, engine: InferenceEngine) -> None:
        self._completions = find
        self._engine = engine

    async def run(self, principal: Principal, completion_id: str) -> CompletionContext:
        """The context of a completion.

        Raises:
            CompletionNotFound: there is none with this id for this principal.
            ContentNotRecorded: it is recorded without its words, or they were erased.
            SessionGone: its session expired, and ``principal`` is no auditor.
        """
        found = await self._completions.request(principal, completion_id)
        seen = await self._completions.seen(principal, found)
        prompt, problem = await self._rendered(found.requested.model_id, seen, found.requested.parameters.shape)
        verdict = PromptVerdict.UNAVAILABLE
        changed: tuple[str, ...] = ()
        if prompt is not None:
            same = found.requested.prompt_digest.matches(prompt.rendered.committed_bytes)
            verdict = PromptVerdict.MATCHES if same else PromptVerdict.DIFFERS
            changed = _changed(prompt.made_by, await self._provenance(found))
        return CompletionContext(
            requested=found.requested,
            header=found.header,
            messages=seen.messages,
            dropped=seen.dropped,
            verdict=verdict,
            prompt=prompt,
            changed=changed,
            problem=problem,
        )

    async def _rendered(
        self, model_id: str, seen: SeenMessages, shape: OutputShape | None
    ) -> tuple[ExplainedPrompt | None, DomainError | None]:
        try:
            model_id = self._engine.resolve(model_id).model_id
            if seen.prompt is not None:
                return await self._engine.tokenize(model_id, seen.prompt), None
            return await self._engine.explain(model_id, seen.messages, shape=shape), None
        except (ModelNotFound, ModelLoadError, EngineUnavailable, InvalidValue) as error:
            return None, error

    async def _provenance(self, found: FoundRequest) -> Provenance | None:
        """What generated the answer, as far as that is known."""
        try:
            outcome = await self._completions.outcome(found)
        except ContentErased:
            return None
        return None if outcome is None else outcome.provenance


def _changed(now: Provenance, then: Provenance | None) -> tuple[str, ...]:
    if then is None:
        return ()
    pairs = (
        ("weights", now.weights_digest, then.weights_digest),
        ("tokenizer", now.tokenizer_digest, then.tokenizer_digest),
        ("template", now.template_digest, then.template_digest),
    )
    return tuple(name for name, today, before in pairs if today != before)
