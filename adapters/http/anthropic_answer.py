"""A message of Anthropic's API out of a completion, whole and as the events of its stream."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

from manent.adapters.http.anthropic_errors import named_event
from manent.adapters.http.wire_anthropic_requests import MessageRequest
from manent.domain.events import CompletionGenerated, CompletionRequested
from manent.domain.generation import FinishReason, Usage
from manent.domain.messages import ToolCall
from manent.domain.output_pieces import Piece
from manent.domain.responses import answer_id


class MessageAnswer:
    """Makes the answer to one request; ``asked`` says how long it might be, and whether thinking is shown."""

    def __init__(self, asked: MessageRequest, requested: CompletionRequested) -> None:
        self._asked = asked
        self._requested = requested
        self._message_id = answer_id(requested.completion_id)
        self._shows_thinking = asked.thinking is None or asked.thinking.display != "omitted"

    def begun(self) -> dict[str, Any]:
        """The message before there is any of it."""
        usage = Usage(prompt_tokens=self._requested.prompt_tokens, completion_tokens=0)
        return self._frame(stop_reason=None, stop_sequence=None, content=[], usage=usage)

    def whole(self, generated: CompletionGenerated, pieces: Iterable[Piece]) -> dict[str, Any]:
        """The message at its end."""
        content = [self.block(piece) for piece in joined(pieces)]
        return self._frame(**self.end(generated), content=content, usage=generated.usage)

    def block(self, piece: Piece) -> dict[str, Any]:
        """A content block that says what ``piece`` does."""
        if piece.call is not None:
            return {**_tool_use(piece.call), "input": tool_input(piece.call)}
        if piece.reasoning:
            thinking = piece.reasoning if self._shows_thinking else ""
            return {"type": "thinking", "thinking": thinking, "signature": self.signature}
        return {"type": "text", "text": piece.text, "citations": None}

    def deltas(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """What a stream adds to a block."""
        if piece.call is not None:
            yield {"type": "input_json_delta", "partial_json": _json(tool_input(piece.call))}
        elif piece.text:
            yield {"type": "text_delta", "text": piece.text}
        elif self._shows_thinking:
            yield {"type": "thinking_delta", "thinking": piece.reasoning}

    @property
    def signature(self) -> str:
        """What thinking is signed with: the message that it belongs to. Clients drop thinking without a signature."""
        return self._message_id

    def end(self, generated: CompletionGenerated) -> dict[str, Any]:
        """Why it ended."""
        reason = self._stop_reason(generated)
        return {
            "stop_reason": reason,
            "stop_sequence": generated.stop_sequence if reason == "stop_sequence" else None,
        }

    def _stop_reason(self, generated: CompletionGenerated) -> str:
        match generated.finish_reason:
            case FinishReason.TOOL_CALLS:
                return "tool_use"
            case FinishReason.LENGTH:
                room = self._requested.parameters.max_tokens
                return "max_tokens" if room >= self._asked.max_tokens else "model_context_window_exceeded"
            case FinishReason.STOP:
                return "end_turn" if generated.stop_sequence is None else "stop_sequence"

    def _frame(
        self, *, stop_reason: str | None, stop_sequence: str | None, content: list[dict[str, Any]], usage: Usage
    ) -> dict[str, Any]:
        return {
            "id": self._message_id,
            "type": "message",
            "role": "assistant",
            "model": self._requested.model_id,
            "content": content,
            "stop_reason": stop_reason,
            "stop_sequence": stop_sequence,
            "stop_details": None,
            "container": None,
            "diagnostics": None,
            "usage": {
                **delta_usage(usage),
                "cache_creation": {"ephemeral_1h_input_tokens": 0, "ephemeral_5m_input_tokens": 0},
                "inference_geo": None,
                "service_tier": "standard",
                "speed": None,
            },
            "session_id": self._requested.session_id,
        }


class MessageEvents:
    """Makes the events of one message's stream, in Anthropic's order."""

    def __init__(self, answer: MessageAnswer) -> None:
        self._answer = answer
        self._index = -1
        self._open: Piece | None = None

    def start(self) -> bytes:
        """The first event."""
        return named_event({"type": "message_start", "message": self._answer.begun()})

    def pieces(self, pieces: Iterable[Piece]) -> bytes:
        """The events of the next pieces."""
        return b"".join(self._piece(piece) for piece in joined(pieces))

    def finish(self, generated: CompletionGenerated) -> bytes:
        """The last events: why it ended, and the usage."""
        delta = {**self._answer.end(generated), "stop_details": None, "container": None}
        ended = {"type": "message_delta", "delta": delta, "usage": delta_usage(generated.usage)}
        return self._close() + named_event(ended) + named_event({"type": "message_stop"})

    def _piece(self, piece: Piece) -> bytes:
        data = b""
        if self._open is None or _kind(self._open) != _kind(piece) or piece.call is not None:
            data = self._close()
            self._index += 1
            self._open = piece
            data += self._event("content_block_start", content_block=self._empty(piece))
        return data + b"".join(self._event("content_block_delta", delta=delta) for delta in self._answer.deltas(piece))

    def _empty(self, piece: Piece) -> dict[str, Any]:
        """The block before there is any of it."""
        block = self._answer.block(piece)
        return block | {
            name: empty
            for name, empty in (("text", ""), ("thinking", ""), ("signature", ""), ("input", {}))
            if name in block
        }

    def _close(self) -> bytes:
        if self._open is None:
            return b""
        data = b""
        if self._open.reasoning:
            data = self._event(
                "content_block_delta", delta={"type": "signature_delta", "signature": self._answer.signature}
            )
        self._open = None
        return data + self._event("content_block_stop")

    def _event(self, kind: str, **members: Any) -> bytes:
        return named_event({"type": kind, "index": self._index, **members})


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces, those of text in a row as one, and those of reasoning."""
    for kind, some in groupby(pieces, key=_kind):
        if kind == "call":
            yield from some
            continue
        together = list(some)
        text, reasoning = "".join(one.text for one in together), "".join(one.reasoning for one in together)
        yield replace(together[0], text=text, reasoning=reasoning, logprobs=())


def delta_usage(usage: Usage) -> dict[str, Any]:
    """Token counts in Anthropic's words: the prompt's are those that no cache had, and those that one had."""
    return {
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"thinking_tokens": usage.reasoning_tokens},
        "server_tool_use": None,
    }


def tool_input(call: ToolCall) -> dict[str, Any]:
    """The arguments of a call, which are an object here; what the model wrote instead of one is its one member."""
    arguments = call.read_arguments()
    return arguments if isinstance(arguments, dict) else {"arguments": arguments}


def _tool_use(call: ToolCall) -> dict[str, Any]:
    return {"type": "tool_use", "id": call.id, "name": call.name, "caller": {"type": "direct"}, "toolset_name": None}


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)


def _kind(piece: Piece) -> str:
    if piece.call is not None:
        return "call"
    return "reasoning" if piece.reasoning else "text"
