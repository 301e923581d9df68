"""A prompt as it is shown to whoever asks what the model saw."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.generation import Provenance, RenderedPrompt


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedPrompt:
    """A rendered prompt with its text, and what rendered it."""

    text: str
    rendered: RenderedPrompt
    made_by: Provenance
