"""Events to bytes and back, also those of earlier and later versions."""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.adapters.store import codec
from manent.adapters.store.codec import (
    EVENT_TYPES,
    HeaderRow,
    decode_event,
    decode_step,
    encode_event,
    header_bytes,
    header_of,
    header_row_bytes,
)
from manent.domain.errors import LogCorrupt
from manent.domain.events import DomainEvent, ErasedEvent, UnknownEvent
from manent.domain.limits import AMOUNT_MAX, RequestLimits
from manent.domain.records import EventHeader
from manent.domain.short_events import in_short
from tests.support.conversation import deleted, said

GOLDEN = Path(__file__).parent.parent / "golden" / "events.jsonl"
LINES = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
# What a payload may hold: JSON has no infinities and no lone surrogates, and integers of 64 bits.
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(str, st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
st.register_type_strategy(int, st.integers(-(2**63), 2**63 - 1))
AMOUNTS = st.none() | st.integers(1, AMOUNT_MAX)
st.register_type_strategy(
    RequestLimits, st.builds(RequestLimits, **{one.name: AMOUNTS for one in fields(RequestLimits)})
)


@for_all(st.one_of(*(st.from_type(event_class) for event_class, _ in EVENT_TYPES.values())))
def test_every_event_survives_the_log(event: DomainEvent) -> None:
    """What is encoded and decoded again is equal, whatever is in it."""
    encoded = encode_event(event)
    assert decode_event(encoded.type, encoded.schema_version, encoded.payload) == event


@pytest.mark.parametrize("line", LINES, ids=[f"{line['type']}-{line['schema_version']}" for line in LINES])
def test_every_version_ever_written_is_read(line: dict[str, Any]) -> None:
    """The golden file holds a payload of each; none may become unreadable or lose its type."""
    event = decode_event(line["type"], line["schema_version"], msgspec.json.encode(line["payload"]))
    assert type(event) is EVENT_TYPES[line["type"]][0]
    assert decode_step(line["type"], line["schema_version"], msgspec.json.encode(line["payload"])) == in_short(event)


def test_what_is_written_today_is_in_the_golden_file() -> None:
    """A new event or schema version needs its golden line, and today's lines are written exactly like that."""
    current = {(name, version) for name, (_, version) in EVENT_TYPES.items()}
    lines = {(line["type"], line["schema_version"]): line["payload"] for line in LINES}
    assert current <= set(lines)
    for name, version in current:
        event = decode_event(name, version, msgspec.json.encode(lines[name, version]))
        assert json.loads(encode_event(event).payload) == lines[name, version]


@pytest.mark.parametrize(("type_name", "version"), [("FromTheFuture", 1), ("MessageAppended", 99)])
def test_what_a_newer_manent_wrote_is_kept_as_it_is(type_name: str, version: int) -> None:
    """Unknown types and newer versions are read without loss, and written again unchanged."""
    payload = b'{"a":[1,{"b":null}],"c":"\xc3\xa9"}'
    event = decode_event(type_name, version, payload)
    assert isinstance(event, UnknownEvent)
    assert encode_event(event).payload == payload


def test_fields_that_a_newer_manent_added_do_not_disturb() -> None:
    """Within a schema version readers ignore members that they do not know."""
    encoded = encode_event(deleted())
    payload = encoded.payload[:-1] + b',"added":1}'
    assert decode_event(encoded.type, encoded.schema_version, payload) == deleted()


def test_an_older_version_is_upcast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upcasters run one after another, from the recorded version to today's."""
    monkeypatch.setattr(codec, "EVENT_TYPES", {"SessionDeleted": (type(deleted()), 3)})
    monkeypatch.setattr(
        codec,
        "UPCASTERS",
        {
            ("SessionDeleted", 1): lambda fields: {**fields, "deleted_by": fields.pop("by")},
            ("SessionDeleted", 2): lambda fields: {**fields, "deleted_at_us": fields.pop("at_s") * 1_000_000},
        },
    )
    event = decode_event("SessionDeleted", 1, b'{"session_id":"s","by":"ann","at_s":1700000000}')
    assert event == deleted()


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"null", b"{}", b'{"session_id":1}', b"\xff"])
def test_a_damaged_payload_is_named(payload: bytes) -> None:
    """The error says which type it should have been, and nothing else is raised."""
    for type_name in ("SessionDeleted", "CompletionGenerated"):
        for decode in (decode_event, decode_step):
            with pytest.raises(LogCorrupt, match=type_name):
                decode(type_name, 1, payload)


def test_a_destroyed_payload_is_an_erased_event() -> None:
    """Erasure leaves the place of an event and its type."""
    assert decode_event("MessageAppended", 1, None) == ErasedEvent(type="MessageAppended")
    assert decode_step("CompletionGenerated", 1, None) == ErasedEvent(type="CompletionGenerated")


def test_header_bytes_are_canonical() -> None:
    """Sorted members, no white space, UTF-8: what RFC 8785 makes of the same object."""
    header = EventHeader(
        actor="ann é",
        causation_id=None,
        correlation_id="k",
        event_id="evt_1",
        log_id="log_1",
        payload_digest="00",
        position=7,
        recorded_at_us=1_700_000_000_000_000,
        request_id=None,
        schema_version=1,
        stream_id="session-s",
        stream_version=2,
        tenant="acme",
        type="MessageAppended",
    )
    members = json.loads(header_bytes(header))
    canonical = json.dumps(members, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert header_bytes(header) == canonical.encode()


@for_all(st.from_type(EventHeader))
def test_a_row_is_encoded_as_its_header(header: EventHeader) -> None:
    """The committer hashes rows, everyone else headers: the same bytes, whatever is in them."""
    row: HeaderRow = astuple(header)
    assert header_row_bytes(row) == header_bytes(header)
    assert header_of(row) == header


def test_type_names_do_not_follow_class_names() -> None:
    """The log's names are a table of their own."""
    assert encode_event(said("user", "x")).type == "MessageAppended"
    assert set(EVENT_TYPES) == {line["type"] for line in LINES}
