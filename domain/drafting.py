"""Speculative decoding in the domain's words: what a draft model did for a completion."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftUse:
    """What a draft model proposed for a completion, in tokens, and how many of them the model chose as well.

    The answer does not depend on it: a proposal that the model does not choose is dropped. ``weights_digest``
    (``sha256:<hex>``) says which draft model it was. Proposals behind the answer's end count too.
    """

    weights_digest: str
    proposed_tokens: int = 0
    accepted_tokens: int = 0
