"""From the inputs of a request to tokens: on a thread of its own, so that long texts do not hold up evaluations."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from tokenizers import Tokenizer

from manent.adapters.inference.embedding_frames import Embed
from manent.adapters.inference.protocol import Failed
from manent.domain.embedding import TOKENS_MAX


class InputTokenizer:
    """Makes tokens of texts, and refuses what the model cannot take. Knows no MLX."""

    def __init__(self, tokenizer: Tokenizer, *, tokens_max: int, vocabulary_size: int, dimensions: int) -> None:
        self._tokenizer = tokenizer
        self._tokens_max = tokens_max
        self._vocabulary_size = vocabulary_size
        self._dimensions = dimensions

    def tokenized(self, request: Embed) -> Embed | Failed:
        """The same request with tokens alone in it, or why it cannot be done."""
        if request.dimensions is not None and request.dimensions > self._dimensions:
            message = f"dimensions is {request.dimensions}, but the model's vectors have {self._dimensions}"
            return _refused(request, message, param="dimensions")
        texts = [text for text in request.inputs if isinstance(text, str)]
        try:
            encodings = iter(self._tokenizer.encode_batch(texts))
        except Exception as error:  # noqa: BLE001 (whatever the tokenizer raises is told to whom it concerns)
            return _refused(request, f"the model's tokenizer refuses the input: {error}"[:1000])
        inputs = tuple(tuple(next(encodings).ids) if isinstance(text, str) else text for text in request.inputs)
        refusal = self._too_long(request, inputs) or self._unknown(request, inputs)
        return refusal or msgspec.structs.replace(request, inputs=inputs)

    def _too_long(self, request: Embed, inputs: Sequence[Sequence[int]]) -> Failed | None:
        tokens_max = min(self._tokens_max, request.tokens_max)
        for number, tokens in enumerate(inputs):
            if len(tokens) > tokens_max:
                message = f"input {number} has {len(tokens)} tokens, and the model takes at most {tokens_max}; split it"
                return _refused(request, message, code="context_length_exceeded")
        if (total := sum(map(len, inputs))) > TOKENS_MAX:
            return _refused(request, f"the inputs have {total} tokens together, at most {TOKENS_MAX} are taken at once")
        return None

    def _unknown(self, request: Embed, inputs: Sequence[Sequence[int]]) -> Failed | None:
        for number, tokens in enumerate(inputs):
            if not tokens:
                return _refused(request, f"input {number} has no tokens")
            if not 0 <= min(tokens) <= max(tokens) < self._vocabulary_size:
                unknown = next(token for token in tokens if not 0 <= token < self._vocabulary_size)
                return _refused(
                    request,
                    f"input {number} holds the token {unknown}, and the model's vocabulary ends at "
                    f"{self._vocabulary_size - 1}: it was made by another model's tokenizer; send text "
                    "(in LangChain, check_embedding_ctx_length=False)",
                )
        return None


def _refused(request: Embed, message: str, *, code: str = "invalid_value", param: str = "input") -> Failed:
    return Failed(id=request.id, code=code, message=message, param=param)
