"""What analysts and auditors see of a conversation that was had: over HTTP and from the command line."""

from __future__ import annotations

import base64
import hashlib
import json

import httpx
import pytest
from openai import OpenAI

from tests.support.commands import manent
from tests.support.server import Server

SESSION = "audited"


@pytest.fixture(scope="module", autouse=True)
def _conversation(server: Server) -> None:
    with server.client() as client:
        for text in ("Hello.", "Bye."):
            client.chat.completions.create(
                model="default",
                messages=[{"role": "user", "content": text}],
                extra_body={"session_id": SESSION},
                temperature=0,
                max_tokens=6,
            )


def test_the_log_holds_the_conversation(server: Server) -> None:
    """Events come in order with the members that were hashed, and payloads that match their digests."""
    page = httpx.get(f"{server.address}/v1/events", params={"stream": f"session-{SESSION}"}).json()
    types = [event["header"]["type"] for event in page["data"]]
    turn = ["MessageAppended", "CompletionRequested", "CompletionGenerated", "MessageAppended"]
    assert types == ["SessionStarted", *turn, *turn]
    for event in page["data"]:
        assert list(event["header"]) == sorted(event["header"])
    generated = next(event for event in page["data"] if event["header"]["type"] == "CompletionGenerated")
    assert generated["payload"]["provenance"]["weights_digest"].startswith("sha256:")
    assert generated["payload"]["provenance"]["versions"]["mlx"]
    assert generated["payload"]["token_ids"]


def test_the_log_is_read_in_pages(server: Server) -> None:
    """Following the last position reads every event once."""
    seen: list[int] = []
    after = 0
    while True:
        params: dict[str, str | int] = {"stream": f"session-{SESSION}", "limit": 2, "after": after}
        page = httpx.get(f"{server.address}/v1/events", params=params).json()
        seen += [event["header"]["position"] for event in page["data"]]
        if not page["has_more"]:
            break
        after = seen[-1]
    assert len(seen) == 9
    assert seen == sorted(set(seen))


def test_events_from_the_command_line_can_be_verified(server: Server) -> None:
    """`manent events --json` prints what a verifier needs: each payload's digest can be recomputed."""
    done = manent("events", "--stream", f"session-{SESSION}", "--json", home=server.home)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(events) == 9
    for event in events:
        assert event["object"] == "event"
        payload = json.dumps(event["payload"], ensure_ascii=False, separators=(",", ":")).encode()
        salted = base64.b64decode(event["salt"]) + payload
        assert hashlib.sha256(salted).hexdigest() == event["header"]["payload_digest"]
    table = manent("events", "--type", "SessionStarted", home=server.home)
    assert f"session-{SESSION}" in table.stdout


def test_replay_shows_the_conversation_as_it_stood(server: Server) -> None:
    """Version 2 is before the first answer; without --at it is now."""
    now = json.loads(manent("replay", SESSION, "--json", home=server.home).stdout)
    then = json.loads(manent("replay", SESSION, "--at", "2", "--json", home=server.home).stdout)
    assert [message["role"] for message in now["messages"]] == ["user", "assistant"] * 2
    assert [message["content"] for message in then["messages"]] == ["Hello."]
    assert (now["version"], then["version"]) == (9, 2)
    readable = manent("replay", SESSION, home=server.home)
    assert "user: Hello." in readable.stdout
    assert "assistant: " in readable.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("replay", "nobody"), 1, "no session 'nobody'"),
        (("replay", SESSION, "--at", "99"), 2, "has 1 to 9"),
        (("replay", SESSION, "--at", "0"), 2, "has 1 to 9"),
        (("replay",), 2, "Missing argument"),
        (("events", "--limit", "0"), 2, "limit"),
        (("chat", "hi", "--url", "http://127.0.0.1:9"), 3, "no server answers"),
    ],
)
def test_commands_say_what_is_wrong(server: Server, arguments: tuple[str, ...], code: int, said: str) -> None:
    """Exit codes and messages as documented: 1 no, 2 usage, 3 unreachable."""
    done = manent(*arguments, home=server.home)
    assert done.returncode == code
    assert said in done.stderr


def test_chat_in_the_terminal_keeps_a_session(server: Server) -> None:
    """`manent chat` streams an answer, and --session goes on with the same conversation."""
    first = manent(
        "chat", "Hello.", "--session", "terminal", "--max-tokens", "6", "--url", server.address, home=server.home
    )
    assert first.returncode == 0, first.stderr
    assert first.stdout.strip()
    second = manent(
        "chat", "Bye.", "--session", "terminal", "--max-tokens", "6", "--url", server.address, home=server.home
    )
    assert "user: Hello." in second.stderr
    replayed = json.loads(manent("replay", "terminal", "--json", home=server.home).stdout)
    assert [message["role"] for message in replayed["messages"]] == ["user", "assistant"] * 2
    assert replayed["messages"][1]["content"].strip() == first.stdout.strip()


def test_a_revised_history_replays_both_ways(server: Server, client: OpenAI) -> None:
    """After an edit the conversation is the client's, and the log still has the old turns."""
    ask = {"model": "default", "temperature": 0, "max_tokens": 4, "extra_body": {"session_id": "edited"}}
    first = client.chat.completions.create(messages=[{"role": "user", "content": "One."}], **ask)  # type: ignore[call-overload]  # by name
    answer = first.choices[0].message.content
    client.chat.completions.create(  # type: ignore[call-overload]  # by name
        messages=[
            {"role": "user", "content": "One, edited."},
            {"role": "assistant", "content": answer},
            {"role": "user", "content": "Two."},
        ],
        **ask,
    )
    now = json.loads(manent("replay", "edited", "--json", home=server.home).stdout)
    assert [message["content"] for message in now["messages"]][:3] == ["One, edited.", answer, "Two."]
    then = json.loads(manent("replay", "edited", "--at", "5", "--json", home=server.home).stdout)
    assert [message["content"] for message in then["messages"]] == ["One.", answer]


def test_a_deleted_session_is_gone_for_clients_and_replays(server: Server) -> None:
    """DELETE answers 404 from then on; replay still shows what was said."""
    created = httpx.post(
        f"{server.address}/v1/sessions",
        json={"session_id": "short-lived", "messages": [{"role": "system", "content": "Be brief."}]},
    )
    assert created.status_code == 201
    assert httpx.delete(f"{server.address}/v1/sessions/short-lived").json()["deleted"] is True
    assert httpx.get(f"{server.address}/v1/sessions/short-lived").status_code == 404
    replayed = json.loads(manent("replay", "short-lived", "--json", home=server.home).stdout)
    assert replayed["status"] == "deleted"
    assert replayed["messages"][0]["content"] == "Be brief."
