"""mlx-lm's BatchGenerator, but for when sequences whose prompt is complete join those that generate."""

from __future__ import annotations

from typing import Any

from mlx_lm.generate import BatchGenerator, PromptProcessingBatch


class JoiningGenerator(BatchGenerator):
    """Sequences join in a step of their own.

    mlx-lm decodes, joins and evaluates more of other prompts in one step; joining copies the caches of the whole batch
    into larger ones, and for those who generate that would be the longest wait of all.
    """

    @property
    def prompt_tokens(self) -> int:
        """How many tokens of prompts were evaluated so far."""
        count: int = self._counters.prompt_tokens
        return count

    def _next(self) -> tuple[list[Any], list[Any]]:
        """Decode and evaluate prompts, or, where prompts are complete and others generate, let their sequences join."""
        ready = [place for place, (segments, _, _) in enumerate(self._currently_processing) if _is_complete(segments)]
        if ready and 0 < len(self._generation_batch) < self.completion_batch_size:
            return self._join(ready), []
        prompts, tokens = super()._next()  # type: ignore[no-untyped-call]  # mlx-lm is partly typed
        return prompts, tokens

    def _join(self, ready: list[int]) -> list[Any]:
        """Let the sequences in these places of the prompt batch join; the reports on them."""
        joining = [self._currently_processing[place] for place in ready]
        self._currently_processing = [one for place, one in enumerate(self._currently_processing) if place not in ready]
        batch = self._prompt_batch.split(ready).generate([segments[0] for segments, _, _ in joining])
        reports = [
            PromptProcessingBatch.Response(uid, (total, total), end_of_segment=True, end_of_prompt=True)
            for uid, (_, _, total) in zip(batch.uids, joining, strict=True)
        ]
        self._generation_batch.extend(batch)
        return reports


def _is_complete(segments: list[list[int]]) -> bool:
    """Whether only the last token of a prompt is left, which the first one is generated from."""
    return len(segments) == 1 and len(segments[0]) == 1
