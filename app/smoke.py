"""The steps of ``manent smoke``: what a client needs of a live server, each done once and timed."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from time import perf_counter
from typing import Any
from urllib.parse import quote

import httpx
from httpx_sse import SSEError, connect_sse

MAX_TOKENS = 16
SAID_CHARS_MAX = 300


class StepFailed(Exception):
    """The server did not do what a step is about; the message says what it did."""


class StepSkipped(Exception):
    """There is nothing to try; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """How a step went: ``passed``, ``skipped`` or ``failed``, in how many seconds, and a detail."""

    step: str
    verdict: str
    seconds: float
    detail: str


class Smoke:
    """One run against a server; it leaves a deleted session behind, and events."""

    def __init__(self, client: httpx.Client, *, model: str) -> None:
        self._client = client
        self._model = model
        self._session = f"smoke-{secrets.token_hex(8)}"

    def run(self) -> Iterator[StepResult]:
        """Every step, whatever became of those before; httpx.ConnectError where no server answers the first."""
        for name, step in self._steps():
            began_s = perf_counter()
            try:
                verdict, detail = "passed", step()
            except StepSkipped as skipped:
                verdict, detail = "skipped", str(skipped)
            except StepFailed as failed:
                verdict, detail = "failed", str(failed)
            except httpx.ConnectError:
                if name == "live":
                    raise
                verdict, detail = "failed", "no connection"
            except (httpx.HTTPError, SSEError, KeyError, IndexError, TypeError, ValueError) as error:
                verdict, detail = "failed", f"no answer as expected: {type(error).__name__}: {error}"[:SAID_CHARS_MAX]
            yield StepResult(step=name, verdict=verdict, seconds=round(perf_counter() - began_s, 3), detail=detail)

    def _steps(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        return (
            ("live", self._live),
            ("ready", self._ready),
            ("models", self._models),
            ("chat", self._chat),
            ("stream", self._stream),
            ("session", self._round_trip),
            ("embeddings", self._embeddings),
            ("events", self._events),
        )

    def _live(self) -> str:
        return f"version {self._asked('GET', '/health/live')['version']}"

    def _ready(self) -> str:
        return str(self._asked("GET", "/health/ready")["status"])

    def _models(self) -> str:
        models = self._asked("GET", "/v1/models")["data"]
        _require(bool(models), "the registry is empty")
        return ", ".join(f"{model['id']} ({model.get('status', 'unknown')})" for model in models)

    def _chat(self) -> str:
        answer = self._asked("POST", "/v1/chat/completions", self._said("Say hello."))
        usage = answer["usage"]
        _require(bool(answer["choices"][0]["finish_reason"]), "it has no finish_reason")
        return f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"

    def _stream(self) -> str:
        began_s, first_s, chunks = perf_counter(), None, 0
        body = {**self._said("Count to three."), "stream": True}
        with connect_sse(self._client, "POST", "/v1/chat/completions", json=body) as source:
            if source.response.is_error:
                source.response.read()
                raise StepFailed(_told(source.response))
            for event in source.iter_sse():
                if event.data == "[DONE]":
                    _require(first_s is not None, "it had no content")
                    return f"first content after {first_s or 0:.3f} s, {chunks} chunks"
                chunk = json.loads(event.data)
                if "error" in chunk:
                    raise StepFailed(str(chunk["error"].get("message"))[:SAID_CHARS_MAX])
                chunks += 1
                if first_s is None and any(choice["delta"].get("content") for choice in chunk["choices"]):
                    first_s = perf_counter() - began_s
        raise StepFailed("it ended without [DONE]")

    def _round_trip(self) -> str:
        """Two turns, what the server remembers of them, and the end of the session."""
        path = f"/v1/sessions/{quote(self._session, safe='')}"
        for text in ("My name is Ada.", "What is my name?"):
            self._asked("POST", "/v1/chat/completions", {**self._said(text), "session_id": self._session})
        messages = self._asked("GET", f"{path}/messages")["data"]
        roles = [message["role"] for message in messages]
        _require(roles == ["user", "assistant"] * 2, f"it holds {roles}")
        _require(messages[2]["content"] == "What is my name?", "it holds other words than were said")
        self._asked("DELETE", path)
        return "two turns kept, then deleted"

    def _embeddings(self) -> str:
        models = self._asked("GET", "/v1/models")["data"]
        found = next((model["id"] for model in models if model.get("type") == "embedding"), None)
        if found is None:
            raise StepSkipped("no model of type embedding")
        vectors = self._asked("POST", "/v1/embeddings", {"model": found, "input": ["one", "two"]})["data"]
        _require(len(vectors) == 2, f"{len(vectors)} vectors for two texts")  # noqa: PLR2004 (two were asked for)
        return f"{found}, {len(vectors[0]['embedding'])} dimensions"

    def _events(self) -> str:
        """The session that was just had, as the log has it."""
        query = {"stream": f"session-{self._session}", "limit": "1000"}
        response = self._client.get("/v1/events", params=query)
        if response.status_code == httpx.codes.FORBIDDEN:
            raise StepSkipped("the credential has not the scope audit")
        types = [event["header"]["type"] for event in _body(response)["data"]]
        ended = types.count("CompletionGenerated")
        _require(types.count("CompletionRequested") == ended, f"the log has {', '.join(types)}")
        _require(types[-1:] == ["SessionDeleted"], "the session's end is not recorded")
        return f"{len(types)} events of the session, {ended} completions, each with its end"

    def _said(self, text: str) -> dict[str, Any]:
        return {"model": self._model, "messages": [{"role": "user", "content": text}], "max_tokens": MAX_TOKENS}

    def _asked(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        return _body(self._client.request(method, path, json=body))


def _body(response: httpx.Response) -> dict[str, Any]:
    if response.is_error:
        raise StepFailed(_told(response))
    body: Any = response.json()
    if not isinstance(body, dict):
        raise StepFailed(f"{response.url.path} answered no JSON object")
    return body


def _told(response: httpx.Response) -> str:
    """The status, and what the server says of it."""
    return f"{response.url.path} answered {response.status_code}: {response.text[:SAID_CHARS_MAX]}"


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001 (a condition)
    if not holds:
        raise StepFailed(otherwise)
