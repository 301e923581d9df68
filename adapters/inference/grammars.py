"""Compiled grammars of one model: made off the thread that evaluates, kept by digest, bounded in number and bytes."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Collection
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import msgspec
from llguidance import LLMatcher, LLTokenizer
from llguidance.hf import from_tokenizer

from manent.adapters.inference.grammar_text import grammar_text
from manent.adapters.inference.tool_dialect import ToolDialect
from manent.domain.output_shape import FormatKind, OutputShape

COMPILE_TIMEOUT_S = 5.0
GRAMMARS_MAX = 64
GRAMMAR_BYTES_MAX = 4 * 2**20
"""Of all definitions that are kept; what is compiled of them grows with them, within llguidance's own limits."""


class GrammarRefused(Exception):
    """The form that an answer must have cannot be enforced; the message says why, ``param`` where it was asked for."""

    def __init__(self, why: str, shape: OutputShape) -> None:
        self.param = _asked_in(shape)
        super().__init__(f"{self.param} cannot be enforced: {why}")


class Grammars:
    """Grammars as matchers in their first state; whoever follows one takes a copy, which shares what was compiled.

    llguidance bounds the work of compiling and of each step, and releases the GIL. Used by several threads.
    """

    def __init__(self, tokenizer: Any, *, vocabulary_size: int, eos_token_ids: Collection[int]) -> None:
        self.dialect = ToolDialect.of(tokenizer)
        self._hugging_face = getattr(tokenizer, "_tokenizer", tokenizer)
        self._vocabulary_size = vocabulary_size
        self._eos_token_ids = sorted(eos_token_ids)
        self._tokenizer: LLTokenizer | None = None
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="grammar")
        self._lock = Lock()
        self._kept: OrderedDict[str, tuple[int, Future[LLMatcher | None]]] = OrderedDict()

    def of(self, shape: OutputShape) -> Future[LLMatcher | None]:
        """The grammar of a shape, compiled or on its way; None in it where the answer is free.

        Its error is GrammarRefused where it cannot be enforced.
        """
        encoded = msgspec.json.encode(shape)
        key = hashlib.sha256(encoded).hexdigest()
        with self._lock:
            size, grammar = self._kept.pop(key, (len(encoded), None))
            # An error is not kept: one that is raised many times grows its traceback.
            if grammar is None or (grammar.done() and grammar.exception() is not None):
                grammar = self._worker.submit(self._compiled, shape)
            self._kept[key] = size, grammar
            while len(self._kept) > GRAMMARS_MAX or sum(kept for kept, _ in self._kept.values()) > GRAMMAR_BYTES_MAX:
                self._kept.popitem(last=False)
        return grammar

    def check(self, shape: OutputShape) -> None:
        """Compile the grammar of a shape now, so that it is there when it is needed.

        Raises:
            GrammarRefused: it cannot be enforced.
        """
        grammar = self.of(shape)
        wait([grammar], timeout=COMPILE_TIMEOUT_S)
        if not grammar.done():
            raise GrammarRefused(f"it takes longer than {COMPILE_TIMEOUT_S:g} s to compile; ask for less", shape)
        grammar.result()

    def _compiled(self, shape: OutputShape) -> LLMatcher | None:
        if not shape.callable_tools and shape.format is None:
            return None
        tokenizer = self._own_tokenizer(shape)
        text = grammar_text(
            shape,
            self.dialect,
            supported=lambda grammar: not LLMatcher.validate_grammar(grammar, tokenizer),
            token_of=self._special_token,
        )
        if text is None:
            return None
        matcher = LLMatcher(tokenizer, text, log_level=0)
        # The first mask finds what compiling does not: a grammar that nothing satisfies, say.
        probe = matcher.deep_copy()
        probe.compute_bitmask()
        if probe.is_error():
            raise GrammarRefused(_reason(probe.get_error()), shape)
        return matcher

    def _own_tokenizer(self, shape: OutputShape) -> LLTokenizer:
        """Made when it is first needed: it takes half a second."""
        if self._tokenizer is None:
            try:
                self._tokenizer = from_tokenizer(
                    self._hugging_face, n_vocab=self._vocabulary_size, eos_token=self._eos_token_ids or None
                )
            except Exception as error:
                raise GrammarRefused(f"the model's tokenizer is of an unknown kind: {error}"[:300], shape) from error
        return self._tokenizer

    def _special_token(self, text: str) -> int | None:
        """Text that is a special token must be named as one: llguidance forces the token, and then misses the text."""
        added = self._hugging_face.added_tokens_decoder.items()
        return next((number for number, token in added if token.special and token.content == text), None)


def _asked_in(shape: OutputShape) -> str:
    if shape.format is None or shape.forced_tools:
        return "tools"
    schema = shape.format.kind in {FormatKind.JSON_OBJECT, FormatKind.JSON_SCHEMA}
    return "response_format" if schema else f"structured_outputs.{shape.format.kind}"


def _reason(error: str) -> str:
    """The first lines of llguidance's message, without the state of its parser."""
    text = error.split("<state>", maxsplit=1)[0].strip()
    _, of_schema, why = text.partition("failed to compile JSON schema: ")
    text = why.split("\n", maxsplit=1)[0] if of_schema else " ".join(text.split())
    return "nothing satisfies it" if not text or "NoExtension" in text else text[:400]
