"""Continuous batching with a draft model: ``TextBatch`` over a generator that speculates while a request is alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from manent.adapters.inference.draft_pace import DraftPace
from manent.adapters.inference.drafting import DraftHooks, DraftingGenerator, DraftModel, Pace
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.sampling import TokenChooser
from manent.domain.drafting import DraftUse


class DraftedBatch(TextBatch):
    """The sequences that one model is generating, with a draft model for who is alone.

    Deterministic requests go without: the shapes of their evaluations must not depend on what is guessed.
    """

    def __init__(self, model: Any, draft: DraftModel, *, pace: Pace | None = None, **text_batch: Any) -> None:
        self._draft = draft
        self._draft_pace = pace or DraftPace(draft.tokens)
        super().__init__(model, **text_batch)

    def _chooser(self, uid: int) -> TokenChooser | None:
        sequence = self._sequences.get(uid)
        return None if sequence is None or sequence.entry.deterministic else sequence.chooser

    def _proposed(self, uid: int, proposed: int, accepted: int) -> None:
        generated = self._sequences[uid].entry.generated
        use = generated.draft or DraftUse(weights_digest=self._draft.weights_digest)
        generated.draft = replace(
            use, proposed_tokens=use.proposed_tokens + proposed, accepted_tokens=use.accepted_tokens + accepted
        )

    def _new_generator(self) -> Any:
        hooks = DraftHooks(self._chooser, self._proposed)
        generator = DraftingGenerator(self._model, self._draft, self._draft_pace, hooks, **self._limits.of_mlx_lm)
        self.prefixes.keeper.attach(generator)
        return generator
