"""What an answer's text consists of: reasoning, words for the reader, tool calls. One reader for every delivery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from manent.adapters.inference.tool_dialect import ToolDialect, Unfinished
from manent.domain.messages import ToolCall
from manent.domain.output_shape import Tool


@dataclass(slots=True)
class Parts:
    """What became certain."""

    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()


class _Where(Enum):
    TEXT = auto()
    REASONING = auto()
    CALL = auto()


class OutputReader:
    """Takes text as it comes, in pieces of any length, and gives the same parts whatever the pieces were.

    White space around reasoning and calls belongs to neither. A call that cannot be read, or that the answer's end cut
    off, is text: nothing that the model said is lost. Only what is cut off behind a whole call is left out, since
    clients would show it beside that one; its tokens are recorded.

    Args:
        thinking: the texts that reasoning begins and ends with; None for a model without it.
        reasons: whether the prompt opened the reasoning.
        dialect: how calls are marked; None where there are no tools.
        tools: what may be called.
        one_call: whether the answer ends with its first call.
    """

    def __init__(
        self,
        *,
        thinking: tuple[str, str] | None = None,
        reasons: bool = False,
        dialect: ToolDialect | None = None,
        tools: Sequence[Tool] = (),
        one_call: bool = False,
    ) -> None:
        self._thinking = thinking
        self._dialect = dialect if tools else None
        self._tools = tools
        self._one_call = one_call
        self._where = _Where.REASONING if reasons and thinking is not None else _Where.TEXT
        self._held = ""
        self._searched = 0
        self._spaces: dict[_Where, str] = {_Where.TEXT: "", _Where.REASONING: ""}
        self._said: set[_Where] = set()
        self._reasoned = self._where is _Where.REASONING
        self.called = False

    @property
    def reasoning(self) -> bool:
        """Whether the model is thinking."""
        return self._where is _Where.REASONING

    @property
    def complete(self) -> bool:
        """Whether nothing more is wanted."""
        return self._one_call and self.called

    def push(self, text: str) -> Parts:
        """Take text in."""
        parts = Parts()
        self._held += text
        while self._held and not self.complete and self._step(parts):
            pass
        return parts

    def finish(self) -> Parts:
        """The answer has ended: what waited is certain."""
        parts = Parts()
        if self.complete:
            return parts
        if self._where is _Where.CALL:
            if not self._take_call(parts, self._held) and not self.called:
                self._emit(parts, _Where.TEXT, f"{self._start}{self._held}")
        else:
            self._emit(parts, self._where, self._held)
        if not self.called and not (self._reasoned and _Where.TEXT not in self._said):
            parts.text += self._spaces[_Where.TEXT]
        self._held = ""
        return parts

    @property
    def _start(self) -> str:
        return "" if self._dialect is None else self._dialect.start

    def _step(self, parts: Parts) -> bool:
        """Move on to the next marker; False where more text is needed."""
        if self._where is _Where.CALL:
            return self._step_call(parts)
        markers = self._markers()
        places = sorted((place, marker) for marker in markers if (place := self._held.find(marker)) >= 0)
        if not places:
            keep = _begun(self._held, list(markers))
            self._emit(parts, self._where, self._held[: len(self._held) - keep])
            self._held = self._held[len(self._held) - keep :]
            return False
        place, marker = places[0]
        self._emit(parts, self._where, self._held[:place])
        self._held = self._held[place + len(marker) :]
        self._enter(markers[marker])
        return True

    def _enter(self, where: _Where) -> None:
        self._where = where
        self._searched = 0
        if where is _Where.REASONING:
            self._reasoned = True
        self._spaces[_Where.REASONING] = ""

    def _markers(self) -> dict[str, _Where]:
        if self._where is _Where.REASONING and self._thinking is not None:
            return {self._thinking[1]: _Where.TEXT}
        found = {} if self._thinking is None else {self._thinking[0]: _Where.REASONING}
        return found if self._dialect is None else {**found, self._dialect.start: _Where.CALL}

    def _step_call(self, parts: Parts) -> bool:
        end = "" if self._dialect is None else self._dialect.end
        place = self._held.find(end, self._searched) if end else -1
        if place < 0:
            self._searched = max(0, len(self._held) - len(end) + 1)
            return False
        body = self._held[:place]
        try:
            read = self._take_call(parts, body)
        except Unfinished:
            self._searched = place + 1
            return True
        if not read:
            self._emit(parts, _Where.TEXT, f"{self._start}{body}{end}")
        self._held = self._held[place + len(end) :]
        self._enter(_Where.TEXT)
        return True

    def _take_call(self, parts: Parts, body: str) -> bool:
        if self._dialect is None:
            return False
        try:
            calls = self._dialect.read(body, self._tools)
        except Unfinished:
            if self._dialect.end and body is not self._held:
                raise
            return False
        except ValueError:
            return False
        parts.tool_calls += calls[:1] if self._one_call else calls
        self.called = True
        return True

    def _emit(self, parts: Parts, where: _Where, text: str) -> None:
        """Let text be certain, without the white space at its end, which may turn out to be around something."""
        text = self._spaces[where] + text
        shown = text.rstrip()
        if where is _Where.REASONING or self._reasoned or self.called:
            shown = shown if where in self._said else shown.lstrip()
        self._spaces[where] = text[len(text.rstrip()) :]
        if not shown:
            return
        self._said.add(where)
        if where is _Where.REASONING:
            parts.reasoning += shown
        else:
            parts.text += shown


def _begun(text: str, markers: Sequence[str]) -> int:
    """How many characters at the end of ``text`` may be the beginning of a marker."""
    longest = max((len(marker) for marker in markers), default=0)
    for length in range(min(longest - 1, len(text)), 0, -1):
        if any(marker.startswith(text[-length:]) for marker in markers):
            return length
    return 0
