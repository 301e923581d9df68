"""``manent verify``: deterministic completions generated again by a running server, and compared with the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from rich.markup import escape

from manent.app.cli.output import ExitCode, err, fail, out, print_json, visible
from manent.app.cli.server import Url, body_of, connected

PAGE = 100
COLORS = {"exact": "green", "diverged": "red", "not_replayable": "yellow"}


def verify(
    completions: Annotated[list[str] | None, typer.Argument(help="Ids of completions, as chatcmpl-…")] = None,
    *,
    session: Annotated[str | None, typer.Option(help="All completions of this session as well.")] = None,
    other_versions: Annotated[
        bool, typer.Option("--other-versions", help="Rerun in spite of other software or another device.")
    ] = False,
    url: Url = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, a line for each.")] = False,
) -> None:
    """Rerun completions that were recorded as deterministic: EXACT, DIVERGED at a token, or NOT_REPLAYABLE and why.

    Exit code 0: all are exact. 1: at least one diverged. 4: none diverged, but at least one cannot be replayed.
    """
    if not completions and session is None:
        fail("name completions, or a session with --session", ExitCode.USAGE)
    verdicts: Counter[str] = Counter()
    with connected(url) as client:
        for completion in _named(client, completions or [], session):
            body = {"other_versions": other_versions}
            answer = body_of(client.post(f"/v1/chat/completions/{quote(completion, safe='')}/verify", json=body))
            verdicts[answer["verdict"]] += 1
            _tell(answer, json=json)
    if not verdicts:
        fail(escape(visible(f"session {session} has no completions")))
    if verdicts.total() > 1 and not json:
        counts = ", ".join(f"{count} {verdict.upper()}" for verdict, count in sorted(verdicts.items()))
        err.print(f"{verdicts.total()} completions: {counts}")
    if verdicts["diverged"]:
        raise typer.Exit(ExitCode.NO)
    if verdicts["not_replayable"]:
        raise typer.Exit(ExitCode.UNDECIDED)


def _named(client: httpx.Client, completions: list[str], session: str | None) -> Iterator[str]:
    """The completions that are named and, in their order, those of the session."""
    yield from completions
    after, more = "0", session is not None
    while more:
        asked = {"session": session, "type": "CompletionRequested", "after": after, "limit": str(PAGE)}
        page = body_of(client.get("/v1/events", params=asked))
        for event in page["data"]:
            if event["payload"] is not None:
                yield event["payload"]["completion_id"]
        after, more = page["last_id"], page["has_more"]


def _tell(answer: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(answer)
        return
    verdict = answer["verdict"]
    told = [f"[{COLORS[verdict]}]{verdict.upper()}[/]", escape(visible(answer["id"]))]
    tokens = f"{answer['compared_tokens']} tokens"
    if verdict == "exact":
        told.append(f"{tokens}, all that it had said when it was cut" if answer["partial"] else tokens)
    elif verdict == "diverged":
        told.append(escape(visible(_parted(answer["divergence"]))))
    else:
        told.append(escape(visible(f"{answer['obstacle']}: {answer['reason']}")))
    out.print(*told, soft_wrap=True)
    if verdict != "not_replayable":
        for part in answer["changed"]:
            out.print(escape(visible(f"  {part['name']} was {part['recorded']} and is {part['now']}")), soft_wrap=True)


def _parted(divergence: dict[str, Any]) -> str:
    choice = f" of choice {divergence['choice']}" if divergence["choice"] else ""
    gap = "" if divergence["logit_gap"] is None else f" (the two best lay {divergence['logit_gap']:g} apart)"
    return (
        f"at token {divergence['position']}{choice}: {_said(divergence['recorded'])} was recorded, "
        f"{_said(divergence['rerun'])} was generated{gap}"
    )


def _said(token: dict[str, Any] | None) -> str:
    if token is None:
        return "the end"
    return str(token["token_id"]) if token["text"] is None else f"{token['token_id']} {token['text']!r}"


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command()(verify)
