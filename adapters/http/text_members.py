"""Text completions as the wire has them, whole and in chunks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from manent.adapters.http.answers import finish_reasons, system_fingerprint, usage_members
from manent.domain.events import CompletionGenerated
from manent.domain.generation import TextDelta, TokenCandidate, TokenLogprobs
from manent.domain.output import PartialOutput
from manent.domain.usecases.running import Accepted


class TextLogprobsWriter:
    """Log probabilities of one choice in the older shape, piece by piece; ``chars`` have been told of before."""

    def __init__(self, chars: int = 0) -> None:
        self._chars = chars
        self._bytes = b""

    def members(self, logprobs: Sequence[TokenLogprobs]) -> dict[str, Any]:
        """A ``TextLogprobs`` of the tokens that come next."""
        offsets = []
        for entry in logprobs:
            offsets.append(self._chars + len(self._bytes.decode("utf-8", "ignore")))
            self._bytes += entry.chosen.token_bytes
        return {
            "tokens": [_name(entry.chosen) for entry in logprobs],
            "token_logprobs": [entry.chosen.logprob for entry in logprobs],
            "top_logprobs": [
                {_name(candidate): candidate.logprob for candidate in (*entry.top, entry.chosen)} for entry in logprobs
            ],
            "text_offset": offsets,
        }


def text_members(
    accepted: Sequence[Accepted],
    generated: Sequence[CompletionGenerated],
    outputs: Sequence[PartialOutput],
    *,
    echo: bool,
) -> dict[str, Any]:
    """A ``TextCompletion``: the choices of each prompt, one prompt behind the other."""
    choices: list[dict[str, Any]] = []
    for one, ended, output in zip(accepted, generated, outputs, strict=True):
        asked = one.requested
        for choice, reason in zip(output.choices, finish_reasons(ended), strict=True):
            logprobs = TextLogprobsWriter().members(choice.logprobs) if asked.parameters.logprobs else None
            text = f"{one.prompt_text if echo else ''}{choice.text}"
            choices.append({"text": text, "index": len(choices), "logprobs": logprobs, "finish_reason": reason})
    first = accepted[0].requested
    return {
        "id": first.completion_id,
        "object": "text_completion",
        "created": first.requested_at_us // 1_000_000,
        "model": first.model_id,
        "choices": choices,
        "usage": usage_members([ended.usage for ended in generated]),
        "system_fingerprint": system_fingerprint(generated[0].provenance),
    }


class TextChunkEncoder:
    """Chunks of the completion of one prompt as events; ``first`` is the completion that all of them are named by."""

    def __init__(self, accepted: Accepted, first: Accepted, *, number: int, echo: bool, include_usage: bool) -> None:
        self._parameters = accepted.requested.parameters
        self._base = number * self._parameters.n
        self._echo = accepted.prompt_text if echo else ""
        self._include_usage = include_usage
        self._logprobs = [TextLogprobsWriter() for _ in range(self._parameters.n)]
        self._frame: dict[str, Any] = {
            "id": first.requested.completion_id,
            "object": "text_completion",
            "created": first.requested.requested_at_us // 1_000_000,
            "model": first.requested.model_id,
            "choices": [],
            "system_fingerprint": None,
        }
        if include_usage:
            self._frame["usage"] = None

    def begin(self) -> bytes:
        """The prompt, where it is to be repeated."""
        if not self._echo:
            return b""
        return b"".join(self._event(self._choice(index, self._echo)) for index in range(self._parameters.n))

    def delta(self, piece: TextDelta) -> bytes:
        """A piece of text."""
        if not piece.text and not piece.logprobs:
            return b""
        logprobs = self._logprobs[piece.index].members(piece.logprobs) if self._parameters.logprobs else None
        return self._event(self._choice(piece.index, piece.text, logprobs=logprobs))

    def finish(self, generated: CompletionGenerated) -> bytes:
        """Why each choice ended."""
        self._frame["system_fingerprint"] = system_fingerprint(generated.provenance)
        return b"".join(
            self._event(self._choice(index, "", finish_reason=reason))
            for index, reason in enumerate(finish_reasons(generated))
        )

    def usage(self, generated: Sequence[CompletionGenerated]) -> bytes:
        """A chunk without choices."""
        if not self._include_usage:
            return b""
        self._frame["usage"] = usage_members([ended.usage for ended in generated])
        return self._event()

    def _choice(
        self, index: int, text: str, *, logprobs: dict[str, Any] | None = None, finish_reason: str | None = None
    ) -> dict[str, Any]:
        return {"text": text, "index": self._base + index, "logprobs": logprobs, "finish_reason": finish_reason}

    def _event(self, *choices: dict[str, Any]) -> bytes:
        self._frame["choices"] = choices
        return b"data: " + msgspec.json.encode(self._frame) + b"\n\n"


def _name(candidate: TokenCandidate) -> str:
    """A token in words: OpenAI's ``bytes:`` form where it is no text on its own."""
    try:
        return candidate.token_bytes.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in candidate.token_bytes)
