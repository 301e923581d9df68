"""A comparison of two sessions in the terminal: what was said once, the answers side by side, and their figures."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from manent.app.cli.output import literal, out, visible
from manent.app.cli.recorded import print_message
from manent.domain.diff import Turn, TurnPair, TurnStatus
from manent.domain.usecases.answered import Answered
from manent.domain.usecases.diff_sessions import SessionDiff

WORDS = re.compile(r"\s+|\w+|[^\w\s]")
WORDS_MAX = 5_000
PARAMETERS = ("temperature", "top_p", "max_tokens", "seed", "stop")
MARKS = {
    TurnStatus.EQUAL: "[green]equal[/]",
    TurnStatus.CHANGED: "[yellow]changed[/]",
    TurnStatus.ONLY_IN_A: "[red]only in a[/]",
    TurnStatus.ONLY_IN_B: "[blue]only in b[/]",
}


def print_diff(page: SessionDiff) -> None:
    """The page, turn by turn."""
    comparison = page.comparison
    counts = ", ".join(f"{comparison.count(status)} {status.value.replace('_', ' ')}" for status in TurnStatus)
    for letter, state in (("a", page.a), ("b", page.b)):
        out.print(f"[bold]{letter}[/bold] {literal(state.session_id)} at version {state.version}", soft_wrap=True)
    common = (
        "" if page.common is None else f" (up to version {page.common.version} of {literal(page.common.session_id)})"
    )
    out.print(f"{comparison.shared} turns shared{common}, then {counts}", soft_wrap=True)
    for pair in page.pairs:
        _print_pair(pair, page)


def _print_pair(pair: TurnPair, page: SessionDiff) -> None:
    out.print(f"\n[bold]turn {pair.number}[/bold] {MARKS[pair.status]}")
    for message in () if pair.a is None else pair.a.said:
        print_message(message)
    if pair.b is not None and not pair.same_said:
        for message in pair.b.said:
            out.print("[bold]b[/bold] ", end="")
            print_message(message)
    table = Table(box=None, show_header=True, expand=True)
    table.add_column("")
    for letter in ("a", "b"):
        table.add_column(letter, ratio=1, overflow="fold")
    table.add_row("answer", *_answers(pair))
    completions = [_completion(turn, page) for turn in (pair.a, pair.b)]
    for name, cells in _figures(completions):
        table.add_row(name, *(literal(cell) for cell in cells))
    out.print(table)


def _answers(pair: TurnPair) -> tuple[Text, Text]:
    a, b = _words(pair.a), _words(pair.b)
    if not pair.same_answer and max(len(a), len(b)) <= WORDS_MAX:
        return _marked(a, b)
    return Text("".join(a)), Text("".join(b))


def _words(turn: Turn | None) -> list[str]:
    text = "" if turn is None or turn.answer is None else turn.answer.text
    return WORDS.findall(visible(text))


def _marked(a: Sequence[str], b: Sequence[str]) -> tuple[Text, Text]:
    """Both texts with the words in color that the other has not."""
    left, right = Text(), Text()
    for kind, a_start, a_end, b_start, b_end in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        left.append("".join(a[a_start:a_end]), style="" if kind == "equal" else "red")
        right.append("".join(b[b_start:b_end]), style="" if kind == "equal" else "green")
    return left, right


def _completion(turn: Turn | None, page: SessionDiff) -> Answered | None:
    return None if turn is None or turn.answer is None else page.completions.get(turn.answer.message_id)


def _figures(completions: Sequence[Answered | None]) -> list[tuple[str, list[str]]]:
    """Rows of what the log says of both completions; of parameters only those that differ."""
    if not any(completions):
        return []
    shown: list[tuple[str, Callable[[Answered], str]]] = [
        ("model", lambda one: one.model_id),
        ("tokens", lambda one: f"{one.usage.prompt_tokens} + {one.usage.completion_tokens}"),
        ("finish", lambda one: one.finish_reason.value),
        ("seconds", _seconds),
    ]
    rows = [(name, [cell(one) if one else "" for one in completions]) for name, cell in shown]
    for name in PARAMETERS if all(completions) else ():
        values = [str(getattr(one.parameters, name)) if one else "" for one in completions]
        if values[0] != values[1]:
            rows.append((name, values))
    return rows


def _seconds(one: Answered) -> str:
    timings = one.timings
    return f"{timings.queue_s + timings.prefill_s + timings.decode_s:.2f} ({timings.prefill_s:.2f} to the first token)"
