"""Exports read back: losslessly where they are whole, and refused by line where they are not."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.adapters.http.import_messages import read_messages_file
from manent.adapters.http.replay_export import markdown_file, messages_file
from manent.adapters.http.replay_import import read_session_file
from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.store.session_file import LINES_MAX, read_events_file
from manent.domain.errors import ImportRefused
from manent.domain.history import History
from manent.domain.messages import Message, Role, TextPart, ToolCall
from manent.domain.replay_events import Fork, SessionImported
from manent.domain.session import SessionState
from manent.domain.usecases.fork_session import ForkCommand
from manent.domain.usecases.import_session import MESSAGES_MAX, ImportCommand, SessionFile
from tests.support.conversation import ANN, assistant, system, user
from tests.support.fakes import CountingIds
from tests.support.manent import World, ask
from tests.support.replays import events_file, folded, recorded, talk, texts_of, world_of_two_models


def read(data: bytes, file_format: str | None = None) -> SessionFile:
    """What the file says."""
    return read_session_file(data, file_format, read_events_file, CountingIds(), IMAGES)


async def imported(world: World, data: bytes, session_id: str = "copy") -> SessionState:
    """The session that the file becomes."""
    return await recorded(world).imports.run(ImportCommand(principal=ANN, file=read(data), session_id=session_id))


def words(state: SessionState) -> list[Message]:
    """The messages without their ids."""
    return [replace(message, message_id="") for message in state.messages]


async def edited_fork(world: World) -> None:
    """A fork f whose history has everything: an inherited past, a revised turn, a new system prompt, metadata."""
    await talk(world, "one", "two")
    fork = ForkCommand(principal=ANN, session_id="s", at_version=9, fork_id="f", metadata={"team": "grün"})
    await recorded(world).fork.run(fork)
    edit = ask(system("be kind"), user("one"), assistant("scripted 1"), user("zwei 🙂"), session_id="f")
    await world.manent.complete_chat.start(edit).generated()


async def test_events_are_exported_and_imported_without_loss() -> None:
    """The conversation is equal: words, roles, order, metadata; and the file stands alone, ancestors included."""
    world, elsewhere = world_of_two_models(), world_of_two_models()
    await edited_fork(world)
    data = await events_file(world, "f")
    state = await imported(elsewhere, data)
    original = await folded(world, "f")
    assert texts_of(original) == ["be kind", "one", "scripted 1", "zwei 🙂", "scripted 3"]
    assert words(state) == words(original)
    assert (dict(state.metadata), state.owner) == ({"team": "grün"}, "ann")
    assert await folded(elsewhere, "copy") == state


async def test_an_import_is_recorded_as_one() -> None:
    """SessionImported says what the file was and what it says of itself; its events are not claimed as ours."""
    world, elsewhere = world_of_two_models(), world_of_two_models()
    await edited_fork(world)
    data = await events_file(world, "f")
    await imported(elsewhere, data)
    assert await elsewhere.types("session-copy") == ["SessionStarted", "SessionImported", *["MessageAppended"] * 5]
    event = (await elsewhere.events("session-copy"))[1]
    assert isinstance(event, SessionImported)
    assert (event.format, event.file_sha256) == ("events", hashlib.sha256(data).hexdigest())
    assert (event.events, event.messages, event.file_bytes) == (data.count(b"\n"), 5, len(data))
    version = len(await world.types("session-f"))
    assert event.origin == Fork(session_id="f", version=version)
    assert event.origin_log_id == json.loads(data.split(b"\n")[0])["header"]["log_id"]


@pytest.mark.parametrize("version", [1, 2, 4, 5, 9])
async def test_any_version_can_be_exported(version: int) -> None:
    """A file cut at the end of a line is the session as it stood then, and says so."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    data = b"".join((await events_file(world, "s")).splitlines(keepends=True)[:version])
    file = read(data)
    assert file.origin == Fork(session_id="s", version=version)
    state = await imported(world, data)
    assert texts_of(state) == [message.text for message in file.messages]


def _line(number: int, change: Callable[[dict[str, Any]], None]) -> Callable[[list[bytes]], list[bytes]]:
    """Change the event in a line, counted from 1."""

    def changed(lines: list[bytes]) -> list[bytes]:
        event = json.loads(lines[number - 1])
        change(event)
        lines[number - 1] = msgspec.json.encode(event)
        return lines

    return changed


def _resigned(number: int, change: Callable[[dict[str, Any]], None]) -> Callable[[list[bytes]], list[bytes]]:
    """Change the payload in a line, and make its digest fit again."""

    def fitting(event: dict[str, Any]) -> None:
        change(event["payload"])
        payload = msgspec.json.encode(event["payload"])
        event["header"]["payload_digest"] = hashlib.sha256(base64.b64decode(event["salt"]) + payload).hexdigest()

    return _line(number, fitting)


HOSTILE: dict[str, tuple[Callable[[list[bytes]], list[bytes]], str]] = {
    "a truncated line": (lambda lines: [*lines[:-1], lines[-1][:40]], "line 9: it is no event"),
    "a doubled line": (lambda lines: [*lines[:3], lines[2], *lines[3:]], "line 4: position 3 follows 3"),
    "a missing line": (lambda lines: [*lines[:3], *lines[4:]], "line 4: version 5 of session-s follows version 3"),
    "lines out of order": (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], "line 2: version 3"),
    "a missing beginning": (lambda lines: lines[1:], "line 1: session-s begins with version 2"),
    "an empty line": (lambda lines: [*lines[:2], b"", *lines[2:]], "line 3: it is no event of a log: it is empty"),
    "another text": (_line(2, lambda e: e["payload"]["message"]["content"][0].update(text="x")), "line 2: its payload"),
    "another salt": (_line(2, lambda e: e.update(salt=base64.b64encode(bytes(32)).decode())), "line 2: its payload"),
    "no salt": (_line(2, lambda e: e.update(salt=None)), "line 2: its salt"),
    "a short salt": (_line(2, lambda e: e.update(salt="AAAA")), "line 2: its salt is not 32 bytes"),
    "salt that is no base64": (_line(2, lambda e: e.update(salt="§" * 44)), "line 2: its salt"),
    "another log": (_line(5, lambda e: e["header"].update(log_id="log_x")), "line 5: it is of another log"),
    "a member too many": (_line(2, lambda e: e.update(more=1)), "line 2: it is no event"),
    "a header member too many": (_line(2, lambda e: e["header"].update(more=1)), "line 2: it is no event"),
    "a header without actor": (_line(2, lambda e: e["header"].pop("actor")), "line 2: it is no event"),
    "a position of text": (_line(2, lambda e: e["header"].update(position="2")), "line 2: it is no event"),
    "a position beyond 64 bits": (_line(2, lambda e: e["header"].update(position=2**70)), "line 2: it is no event"),
    "an array": (lambda lines: [lines[0], b"[]", *lines[2:]], "line 2: it is no event"),
    "a NUL byte": (lambda lines: [lines[0], b"\0", *lines[2:]], "line 2: it is no event"),
    "bytes that are no UTF-8": (lambda lines: [lines[0], lines[1].replace(b"one", b"\xff\xfe"), *lines[2:]], "line 2"),
    "UTF-16": (lambda lines: [line.decode().encode("utf-16") for line in lines], "line 1"),
    "half a surrogate pair": (lambda lines: [lines[0], lines[1].replace(b"one", b"\\ud800"), *lines[2:]], "line 2"),
    "deep nesting": (
        lambda lines: [lines[0], lines[1].replace(b'"one"', b"[" * 100_000 + b"]" * 100_000), *lines[2:]],
        "line 2",
    ),
    "a role that is none": (
        _resigned(2, lambda p: p["message"].update(role="root")),
        "line 2: the payload of a MessageAppended",
    ),
    "a message that is text": (_resigned(2, lambda p: p.update(message="hi")), "line 2: the payload"),
    "a fork of nothing": (
        _resigned(1, lambda p: p.update(parent={"session_id": "p", "version": 3})),
        "line 1: session s is a fork of p at 3, but nothing",
    ),
    "a session of another name": (_resigned(1, lambda p: p.update(session_id="x")), "line 1: session-s does not begin"),
    "a stream that is no session": (_line(1, lambda e: e["header"].update(stream_id="model-m")), "line 1: model-m"),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_a_file_that_was_meddled_with_is_refused_by_its_line(name: str) -> None:
    """Truncated, doubled, reordered, changed, foreign, hostile: the line and the reason are named."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    meddle, said = HOSTILE[name]
    lines = meddle((await events_file(world, "s")).split(b"\n")[:-1])
    with pytest.raises(ImportRefused) as refused:
        read(b"\n".join(lines), "events")
    assert refused.value.message.startswith(said), refused.value.message


async def test_a_history_is_never_revised_from_outside() -> None:
    """A file whose HistoryRevised names a place that is not there cannot make a conversation with less than nothing."""
    world = world_of_two_models()
    await edited_fork(world)
    lines = (await events_file(world, "f")).split(b"\n")[:-1]
    number = next(i for i, line in enumerate(lines, 1) if b'"HistoryRevised"' in line)
    for index in (-5, 99):
        meddled = _resigned(number, lambda payload, index=index: payload.update(from_index=index))(list(lines))  # type: ignore[misc]  # a default
        with pytest.raises(ImportRefused, match=f"line {number}: it revises message {index}"):
            read(b"\n".join(meddled))


async def test_an_ancestor_that_is_cut_short_is_noticed() -> None:
    """A fork's own events follow its parent's, to the version where it branched off."""
    world = world_of_two_models()
    await edited_fork(world)
    lines = (await events_file(world, "f")).split(b"\n")[:-1]
    with pytest.raises(ImportRefused, match=r"line 9: session f is a fork of s at 9, but s at 8 stands before it"):
        read(b"\n".join([*lines[:8], *lines[9:]]))


async def test_erased_events_are_gaps() -> None:
    """Null for payload and salt: the place stands, the words are gone."""
    world = world_of_two_models()
    await talk(world, "one", "two")
    lines = (await events_file(world, "s")).split(b"\n")[:-1]
    erased = _line(2, lambda event: event.update(payload=None, salt=None))(lines)
    assert [message.text for message in read(b"\n".join(erased)).messages] == ["scripted 1", "two", "scripted 2"]


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    """Lines and their number are bounded."""
    with pytest.raises(ImportRefused, match="line 1: it has"):
        read_events_file(b"x" * (24 * 1024 * 1024 + 1), CountingIds())
    with pytest.raises(ImportRefused, match="line 1: it is no event"):
        read_events_file(b"\n" * (LINES_MAX + 10), CountingIds())


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NAMES = st.one_of(st.none(), st.from_regex(r"[a-z]{1,10}", fullmatch=True))
CALLS = st.builds(ToolCall, id=st.just("call_1"), name=st.just("f"), arguments=TEXT)
IMAGES = CheckedImages(ImageFetcher("data"))
PARTS = st.lists(st.builds(TextPart, text=TEXT), max_size=3).map(tuple)
MESSAGES = st.builds(
    Message,
    message_id=st.just("m"),
    role=st.sampled_from(Role),
    content=PARTS,
    name=NAMES,
    tool_calls=st.lists(CALLS, max_size=2).map(tuple),
    tool_call_id=st.one_of(st.none(), st.just("call_1")),
)


@for_all(st.lists(MESSAGES, min_size=1, max_size=5))
def test_openai_messages_are_exported_and_imported_without_loss(messages: list[Message]) -> None:
    """Whatever is in them: parts, names, tool calls, any text."""
    state = SessionState(session_id="s", tenant="acme", messages=History(messages))
    file = read(messages_file(state))
    assert file.format == "messages"
    assert [replace(message, message_id="m") for message in file.messages] == messages


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "the file is empty"),
        (b" \n ", "the file is empty"),
        (b"{}", "neither events"),
        (b'{"messages": 3}', "neither events"),
        (b'"hello"', "neither events"),
        (b"<html>", "could not be read as JSON"),
        (b'{"messages": []}', "holds no messages"),
        (b'{"messages": [3]}', r"messages\[0\] is no object"),
        (b'{"messages": [{"role": "user", "content": "a"}, {"role": "root", "content": "b"}]}', r"messages\[1\]: "),
        (b'[{"role": "user", "content": 3}]', r"messages\[0\]: .*content"),
        (b'[{"role": "user", "content": [{"type": "image_url"}]}]', r"messages\[0\]: "),
        (b'[{"role": "user", "content": "a", "weight": 1}]', r"messages\[0\]: .*weight"),
        (b'[{"role": "user", "content": "a"}]\n[{"role": "user"}]', "line 2"),
        (b'{"messages": [{"role": "user", "content": "a"}], "tools": [{}]}', "'tools' beside messages"),
        (b'[{"role": "user", "role": "system", "content": "a"}]', "twice"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'[{"role": "user", "content": "\xff"}]', "not UTF-8"),
        (b'[{"role": "user", "content": "\\ud800"}]', "surrogate"),
        (
            json.dumps([{"role": "user", "content": "a"}] * (MESSAGES_MAX + 1)).encode(),
            "at most 100000: import it in parts",
        ),
    ],
)
def test_messages_that_are_none_are_refused_by_their_place(data: bytes, said: str) -> None:
    """The line or the message, and what is wrong with it."""
    with pytest.raises(ImportRefused, match=said):
        read(data)


def test_what_says_nothing_is_not_in_the_way() -> None:
    """OpenAI's clients write down members that are null or empty."""
    empty: dict[str, Any] = {"refusal": None, "tool_calls": [], "annotations": [], "audio": None}
    data = json.dumps({"messages": [{"role": "assistant", "content": "a", **empty}]}).encode()
    (message,) = read_messages_file(data, CountingIds(), IMAGES).messages
    assert (message.text, message.role) == ("a", Role.ASSISTANT)


async def test_a_conversation_beyond_the_bound_is_refused_whole() -> None:
    """It says what to do, and nothing is written."""
    world = world_of_two_models()
    file = SessionFile(
        format="events", sha256="", size_bytes=0, messages=tuple([user("x")] * (MESSAGES_MAX + 1)), metadata={}
    )
    with pytest.raises(ImportRefused, match="at most 100000: import it in parts"):
        await recorded(world).imports.run(ImportCommand(principal=ANN, file=file, session_id="copy"))
    assert await world.types("session-copy") == []


def test_markdown_keeps_what_was_said_apart_from_what_it_is() -> None:
    """Words that look like a heading stay in their quote."""
    said = [system("be brief"), user("hello\n# Session x\n## 9. assistant\n\nyes"), assistant("")]
    text = markdown_file(SessionState(session_id="s", tenant="acme", version=4, messages=History(said))).decode()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# Session s",
        "## 1. system",
        "## 2. user",
        "## 3. assistant",
    ]
    assert "> # Session x" in text
