"""``manent chat``: a conversation in the terminal, kept in a session of the server."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any
from urllib.parse import quote

import httpx
import typer
from httpx_sse import connect_sse

from manent.app.cli.output import ExitCode, err, fail, literal, out, visible
from manent.app.cli.server import Refused, Url, ask, body_of, connected, error_message
from manent.domain.errors import InvalidValue
from manent.domain.session_limits import check_session_id


def chat(
    message: Annotated[str | None, typer.Argument(help="Say this, print the answer and exit.")] = None,
    *,
    session: Annotated[str | None, typer.Option(help="Resume this session, or start it under this id.")] = None,
    model: Annotated[str, typer.Option(help="Model id or alias.")] = "default",
    system: Annotated[str | None, typer.Option(help="System prompt; replaces the session's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Longest answer, in tokens.", min=1)] = None,
    url: Url = None,
) -> None:
    """Talk with a model; Ctrl-C stops an answer, Ctrl-D or /exit ends the conversation."""
    with connected(url) as client:
        conversation = Conversation(client, model=model, system=system, max_tokens=max_tokens)
        try:
            conversation.start() if session is None else conversation.resume(session)
            if message is not None:
                conversation.say(message)
            else:
                _converse(conversation)
        except InvalidValue as error:
            fail(error.message, ExitCode.USAGE)


class Conversation:
    """A session of the server, seen from a terminal."""

    def __init__(self, client: httpx.Client, *, model: str, system: str | None, max_tokens: int | None) -> None:
        self._client = client
        self._model = model
        self._system = system
        self._max_tokens = max_tokens
        self._session_id = ""

    @property
    def session_id(self) -> str:
        """The session's id, once it was started or resumed."""
        return self._session_id

    def start(self) -> None:
        """Start a session under a new id."""
        self._session_id = str(ask(self._client, "POST", "/v1/sessions", json={})["id"])
        err.print(f"[dim]session {literal(self._session_id)}; resume it with --session[/dim]")

    def resume(self, session_id: str) -> None:
        """Go on with a session, showing how it stood, or start it where it is new."""
        check_session_id(session_id)
        self._session_id = session_id
        path = f"/v1/sessions/{quote(session_id, safe='')}/messages"
        found = self._client.get(path, params={"limit": 6, "order": "desc"})
        if found.status_code == httpx.codes.NOT_FOUND:
            return
        for message in reversed(body_of(found)["data"]):
            text = message["content"]
            err.print(f"[dim]{literal(message['role'])}: {literal(text)}[/dim]")

    def say(self, text: str) -> None:
        """Say ``text`` and print the answer as it comes."""
        messages = [{"role": "user", "content": text}]
        if self._system is not None:
            messages.insert(0, {"role": "system", "content": self._system})
        body: dict[str, Any] = {
            "model": self._model,
            "messages": messages,
            "session_id": self._session_id,
            "stream": True,
        }
        if self._max_tokens is not None:
            body["max_tokens"] = self._max_tokens
        with connect_sse(self._client, "POST", "/v1/chat/completions", json=body) as source:
            if source.response.is_error:
                source.response.read()
                body_of(source.response)
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    sys.stdout.write("\n")
                    sys.stdout.flush()
                    return
                self._print(json.loads(event.data))
        raise Refused("the stream ended before the answer was complete; the log says how the completion ended")

    def _print(self, chunk: dict[str, Any]) -> None:
        if "error" in chunk:
            raise Refused(error_message(chunk))
        for choice in chunk["choices"]:
            sys.stdout.write(visible(choice["delta"].get("content") or ""))
        sys.stdout.flush()


def _converse(conversation: Conversation) -> None:
    while True:
        try:
            text = out.input("[cyan]you:[/cyan] ").strip()
        except (EOFError, KeyboardInterrupt):
            out.print()
            return
        if text in {"/exit", "/quit"}:
            return
        if not text:
            continue
        try:
            conversation.say(text)
        except KeyboardInterrupt:
            out.print("\n[dim]stopped[/dim]")
        except Refused as error:
            err.print(f"[red]{literal(error)}[/red]")


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.command("chat")(chat)
