"""What a batch knows of a request and of each of its choices, and what the server is told of a token."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from manent.adapters.inference.grammars import GrammarRefused
from manent.adapters.inference.guide import GrammarTooComplex, Guide, Thinking
from manent.adapters.inference.protocol import Failed, Generate, Progress, RunnerFrame
from manent.adapters.inference.runner_log import say
from manent.adapters.inference.sampling import Choice, TokenChooser
from manent.adapters.inference.sequence import GeneratedRequest
from manent.adapters.inference.token_text import TokenBytes
from manent.domain.generation import TokenCandidate, TokenLogprobs

_LOGPROB_MIN = -9999.0
"""What OpenAI says of a token that cannot come: JSON has no infinity."""


class BatchSequence:
    """One choice of a request in the batch.

    ``tokens`` were handed out. ``shown_early``: the latest of them was taken from the chooser, and will come again.
    """

    def __init__(self, entry: BatchEntry, index: int, tokens: list[int]) -> None:
        request = entry.request
        self.entry = entry
        self.index = index
        self.tokens = tokens
        self.shown_early = False
        self.chooser = TokenChooser(
            request.parameters, index=index, prompt=request.token_ids, output=tuple(tokens), guide=self._guide()
        )

    @property
    def known(self) -> list[int]:
        """The prompt and what was handed out."""
        return [*self.entry.request.token_ids, *self.tokens]

    def _guide(self) -> Guide | None:
        entry = self.entry
        if entry.grammar is None:
            return None
        return Guide(entry.grammar.deep_copy(), thinking=entry.thinking, output=self.tokens)


class BatchEntry:
    """A request, its choices that have not ended, and those that wait for the first one's prompt to be evaluated."""

    def __init__(
        self,
        request: Generate,
        generated: GeneratedRequest,
        *,
        stop_token_ids: Collection[int],
        thinking: Thinking | None = None,
    ) -> None:
        self.request = request
        self.thinking = thinking
        self.grammar: Any = None
        self.generated = generated
        self.stop_token_ids = frozenset(stop_token_ids).union(request.parameters.stop_token_ids)
        self.open = [BatchSequence(self, index, []) for index in range(request.parameters.n)]
        self.forks: list[BatchSequence] = []

    @property
    def deterministic(self) -> bool:
        """Whether nothing of how it is evaluated may depend on time; nobody else is in the batch then."""
        return self.request.parameters.deterministic

    @property
    def handed_out_tokens(self) -> int:
        """Of the choice that has the fewest."""
        return min((len(sequence.tokens) for sequence in self.open), default=0)

    def ruled_by(self, grammar: Any) -> None:
        """Have every choice follow a grammar (an ``LLMatcher`` in its first state), before any token is chosen."""
        self.grammar = grammar
        self.begin_again()

    def begin_again(self) -> None:
        """Forget what was chosen and not handed out: its evaluation is lost."""
        self.open = [BatchSequence(self, sequence.index, sequence.tokens) for sequence in self.open]


def refusal_of(request: Generate, *, vocabulary_size: int) -> Failed | None:
    """The answer to a request that cannot be evaluated; None where it can."""
    if not request.token_ids:
        return Failed(id=request.id, code="invalid_value", message="the prompt is empty")
    bound = vocabulary_size - 1
    if not all(0 <= token <= bound for token in request.token_ids):
        return Failed(id=request.id, code="generation_failed", message=f"token ids must be within 0 and {bound}")
    asked = request.parameters
    if not all(0 <= token <= bound for token in (*asked.logit_bias, *asked.stop_token_ids)):
        message = f"token ids of logit_bias and stop_token_ids must be within 0 and {bound}"
        return Failed(id=request.id, code="invalid_value", message=message)
    if asked.max_tokens < 1:
        return Failed(id=request.id, code="invalid_value", message="max_tokens must be at least 1")
    return None


def signs_of_life(
    entries: Iterable[BatchEntry], processed: Mapping[int, int], *, interval_s: float
) -> list[RunnerFrame]:
    """One for every request that produced nothing for a while, those that still wait included."""
    now_s = time.monotonic()
    return [
        Progress(
            id=entry.request.id,
            processed_tokens=processed.get(entry.request.id, 0),
            total_tokens=entry.generated.prompt_tokens,
        )
        for entry in entries
        if entry.generated.due(now_s, interval_s=interval_s)
    ]


def evaluation_failed(request: Generate, error: Exception) -> Failed:
    """The answer to a request that the model could not be evaluated for; the server's log says where it failed."""
    if isinstance(error, GrammarRefused | GrammarTooComplex):
        return Failed(id=request.id, code="invalid_value", message=str(error)[:500])
    say("a request could not be evaluated", request=request, error=error)
    message = f"the model could not be evaluated: {type(error).__name__}: {error}"[:500]
    return Failed(id=request.id, code="generation_failed", message=message)


def told_logprobs(token: int, choice: Choice, token_bytes: TokenBytes) -> TokenLogprobs:
    """What the model thought of a token, as the server is told."""

    def candidate(token_id: int, logprob: float) -> TokenCandidate:
        # Six decimals: the noise of single precision is larger.
        told = round(max(logprob, _LOGPROB_MIN), 6)
        return TokenCandidate(token_id=token_id, token_bytes=token_bytes(token_id), logprob=told)

    return TokenLogprobs(
        chosen=candidate(token, choice.logprob_value),
        top=tuple(candidate(*found) for found in choice.top()),
    )
