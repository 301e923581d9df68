"""A completion that was accepted: here, with what the engine needs, or by somebody else before."""

from __future__ import annotations

from dataclasses import dataclass

from manent.domain.generation import RenderedPrompt, SamplingParameters
from manent.domain.made_often import made_often
from manent.domain.records import Appended
from manent.domain.usecases.running import Accepted


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An accepted completion with what the engine needs."""

    accepted: Accepted
    prompt: RenderedPrompt
    parameters: SamplingParameters
    record_content: bool


class Repeated(Exception):
    """Somebody accepted a request under the same idempotency key meanwhile; it landed at ``appended``."""

    def __init__(self, appended: Appended) -> None:
        super().__init__(f"accepted before, at position {appended.position}")
        self.appended = appended
