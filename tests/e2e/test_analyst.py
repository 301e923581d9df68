"""An analyst's work on real answers: forks, reruns on both models, comparisons, what the model saw, files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.support.commands import manent
from tests.support.server import Server

SESSION = "analyst"
MODEL = "smollm2-135m-instruct"


@pytest.fixture(scope="module", autouse=True)
def _conversation(server: Server) -> None:
    with server.client() as client:
        for text in ("Name a color.", "Name a fruit of that color."):
            client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": text}],
                extra_body={"session_id": SESSION},
                temperature=0.8,
                top_p=0.9,
                max_tokens=10,
                seed=11,
            )


def get(server: Server, path: str, **params: Any) -> Any:
    """The body of an answer that is no error."""
    answer = httpx.get(f"{server.address}/v1{path}", params=params, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.json()


def rerun(server: Server, session_id: str, *options: str) -> None:
    """A rerun of the conversation, followed to its end."""
    done = manent(
        "sessions", "rerun", SESSION, "--session-id", session_id, "--url", server.address, *options, home=server.home
    )
    assert done.returncode == 0, done.stderr


def answers(server: Server, session_id: str) -> list[str]:
    """What the assistant said."""
    page = get(server, f"/sessions/{session_id}/messages")
    return [message["content"] for message in page["data"] if message["role"] == "assistant"]


def test_the_same_seed_gives_the_same_answers(server: Server) -> None:
    """Sampled, alone in its batch, on one machine: a rerun with everything as it was recorded repeats the text."""
    rerun(server, "same", "--from-version", "1")
    assert answers(server, "same") == answers(server, SESSION)
    diff = get(server, f"/sessions/{SESSION}/diff/same")
    assert (diff["counts"]["equal"], diff["shared_turns"]) == (2, 0)
    for turn in diff["data"]:
        a, b = turn["a"]["completion"], turn["b"]["completion"]
        assert (a["parameters"], a["usage"]["completion_tokens"]) == (b["parameters"], b["usage"]["completion_tokens"])
        assert a["system_fingerprint"] == b["system_fingerprint"]


def test_another_seed_is_used(server: Server) -> None:
    """What is overridden is recorded; only the second turn is generated again."""
    rerun(server, "other-seed", "--from-version", "5", "--seed", "12")
    diff = get(server, f"/sessions/{SESSION}/diff/other-seed")
    assert (diff["shared_turns"], diff["common"]) == (1, {"session_id": SESSION, "version": 5})
    (turn,) = diff["data"]
    assert (turn["a"]["completion"]["parameters"]["seed"], turn["b"]["completion"]["parameters"]["seed"]) == (11, 12)


def test_a_second_model_answers_the_same_questions(server: Server) -> None:
    """Its own weights made the answers, which the log can tell."""
    rerun(server, "second-model", "--from-version", "1", "--model", "second")
    diff = get(server, f"/sessions/{SESSION}/diff/second-model")
    for turn in diff["data"]:
        assert turn["same_messages"]
        assert (turn["a"]["completion"]["model"], turn["b"]["completion"]["model"]) == (MODEL, "second")
        assert turn["a"]["completion"]["system_fingerprint"] != turn["b"]["completion"]["system_fingerprint"]
    readable = manent("sessions", "diff", SESSION, "second-model", home=server.home)
    assert "turn 2" in readable.stdout
    assert "second" in readable.stdout


def test_the_model_saw_what_was_committed_to(server: Server) -> None:
    """Each prompt of the conversation and of its reruns renders as it did, chat template and all."""
    page = get(server, "/events", type="CompletionRequested", session=SESSION)
    for event in page["data"]:
        context = get(server, f"/chat/completions/{event['payload']['completion_id']}/context")
        assert (context["verdict"], context["changed"], context["problem"]) == ("matches", [], None)
        assert context["prompt"]["text"].count("<|im_start|>") == len(context["messages"]) + 2
        assert len(context["prompt"]["token_ids"]) == context["prompt_tokens"]


def test_a_fork_goes_on_with_the_model(server: Server, client: OpenAI) -> None:
    """It shares the past, and its model sees it."""
    forked = httpx.post(f"{server.address}/v1/sessions/{SESSION}/fork", json={"at_version": 5, "session_id": "forked"})
    assert forked.status_code == 201
    client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "And an animal?"}],
        extra_body={"session_id": "forked"},
        max_tokens=4,
    )
    page = get(server, "/events", type="CompletionRequested", session="forked")
    context = get(server, f"/chat/completions/{page['data'][0]['payload']['completion_id']}/context")
    said = [message["content"] for message in context["messages"]]
    assert said == ["Name a color.", answers(server, SESSION)[0], "And an animal?"]


def test_files_lead_back_to_the_conversation(server: Server, tmp_path: Path) -> None:
    """Events and messages, through the terminal and over HTTP."""
    file = tmp_path / "analyst.jsonl"
    assert manent("sessions", "export", SESSION, "--output", str(file), home=server.home).returncode == 0
    assert manent("sessions", "import", str(file), "--session-id", "copied", home=server.home).returncode == 0
    assert answers(server, "copied") == answers(server, SESSION)
    messages = httpx.get(f"{server.address}/v1/sessions/{SESSION}/export", params={"format": "messages"})
    made = httpx.post(
        f"{server.address}/v1/sessions/import",
        params={"session_id": "copied-too"},
        content=messages.content,
        headers={"content-type": "application/json"},
    )
    assert made.status_code == 201
    assert get(server, f"/sessions/{SESSION}/diff/copied-too")["counts"]["equal"] == 2
