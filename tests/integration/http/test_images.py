"""Images over HTTP: taken, recorded, shown, taken away and brought back; and refused before anything is recorded."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from manent.adapters.http.context import HttpLimits
from manent.adapters.http.wire_responses import ModelList, SessionMessage
from manent.adapters.inference.scripted import SCRIPTED_CARD, ScriptedEngine
from manent.domain.commitments import SaltedDigest
from manent.domain.embedding import ModelType
from tests.support.http import Running, running_server
from tests.support.pictures import GREEN, animation, data_url, picture, png_of_size

PNG = picture()
DIGEST = f"sha256:{hashlib.sha256(PNG).hexdigest()}"
SEES = dataclasses.replace(SCRIPTED_CARD, model_id="sees", aliases=(), type=ModelType.VLM)


def image(data: bytes = PNG, **members: Any) -> dict[str, Any]:
    """An image part."""
    return {"type": "image_url", "image_url": {"url": data_url(data), **members}}


def asking(*parts: dict[str, Any]) -> dict[str, Any]:
    """A user's message: text, and what is given."""
    return {"role": "user", "content": [{"type": "text", "text": "What is this?"}, *parts]}


@asynccontextmanager
async def seeing_server(**options: Any) -> AsyncGenerator[Running, None]:
    """A server with a model that reads text and one that reads images."""
    async with running_server(engine=ScriptedEngine(cards=(SCRIPTED_CARD, SEES)), **options) as running:
        yield running


async def test_an_image_is_recorded_once_however_often_it_is_resent() -> None:
    """A client that resends the history adds nothing to it; the event has the file, its size and its digest."""
    async with seeing_server() as running:
        said = [asking(image(detail="low"), image(picture(color=GREEN, width=80)))]
        first = await running.chat(model="sees", session_id="s", messages=said)
        assert first.status_code == 200, first.text
        answer = first.json()["choices"][0]["message"]
        again = [*said, answer, {"role": "user", "content": "And now?"}]
        assert (await running.chat(model="sees", session_id="s", messages=again)).status_code == 200

        payloads = [json.loads(entry.payload or b"") for entry in await running.log("MessageAppended")]
        assert [len(payload["message"]["images"]) for payload in payloads] == [2, 0, 0, 0]
        one, other = payloads[0]["message"]["images"]
        assert base64.b64decode(one.pop("data")) == PNG
        assert one == {
            "digest": DIGEST,
            "media_type": "image/png",
            "width": 64,
            "height": 64,
            "detail": "low",
            "text_before": 1,
        }
        assert (other["width"], other["detail"]) == (80, "auto")
        assert [len(message.images) for message in running.engine.requests[-1].prompt.messages] == []
        assert [len(message.images) for message in running.engine.rendered[-1]] == [2, 0, 0]


async def test_without_a_record_of_content_there_is_a_commitment_to_the_image() -> None:
    """What is not recorded can be proved later: the salted digest is of the text and the image."""
    async with seeing_server() as running:
        assert (await running.chat(model="sees", messages=[asking(image())])).status_code == 200
        (recorded,) = (await running.payload_of("CompletionRequested"))["input"]
        assert recorded["content"] is None
        committed = SaltedDigest(**recorded["digest"])
        assert committed.matches(b"What is this?" + hashlib.sha256(PNG).digest())
        assert not committed.matches(b"What is this?")


async def test_a_session_with_images_is_shown_exported_and_imported() -> None:
    """Its messages name the image; both formats bring it back whole, and Markdown says that it is there."""
    async with seeing_server() as running:
        http = running.http
        body = {"session_id": "s", "messages": [asking(image(), {"type": "text", "text": " And?"}, image())]}
        assert (await http.post("/v1/sessions", json=body)).status_code == 201
        added = await http.post("/v1/sessions/s/messages", json={"role": "user", "content": [image()]})
        assert added.status_code == 201
        shown = SessionMessage.model_validate_json(added.content, strict=True)
        assert (shown.content, [part.type for part in shown.content_parts or []]) == ("", ["image"])
        (first, _) = (await http.get("/v1/sessions/s/messages")).json()["data"]
        assert [part["type"] for part in first["content_parts"]] == ["text", "image", "text", "image"]
        assert (first["content_parts"][1]["digest"], first["content_parts"][1]["size_bytes"]) == (DIGEST, len(PNG))

        exported = {
            kind: (await http.get(f"/v1/sessions/s/export?format={kind}")).content
            for kind in ("messages", "events", "markdown")
        }
        assert f"> [image/png, 64 x 64 pixels, {DIGEST}]".encode() in exported["markdown"]
        for kind in ("messages", "events"):
            imported = await http.post(
                f"/v1/sessions/import?session_id=from-{kind}",
                content=exported[kind],
                headers={"content-type": "application/json"},
            )
            assert imported.status_code == 201, imported.text
            again = (await http.get(f"/v1/sessions/from-{kind}/export?format=messages")).content
            assert again == exported["messages"]
        forged = exported["messages"].replace(data_url(PNG).encode(), data_url(PNG[:100]).encode())
        refused = await http.post("/v1/sessions/import", content=forged, headers={"content-type": "application/json"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "import_refused")
        assert "messages[0]" in refused.json()["error"]["message"]


async def test_models_say_what_they_read() -> None:
    """Clients learn from the list of models whom they can send images."""
    async with seeing_server() as running:
        models = ModelList.model_validate_json((await running.http.get("/v1/models")).content, strict=True)
        assert {model.id: model.input_modalities for model in models.data} == {
            "scripted": ["text"],
            "sees": ["text", "image"],
        }


@pytest.mark.parametrize(
    ("model", "message", "param", "says"),
    [
        ("scripted", asking(image()), "messages", "model scripted reads text alone"),
        ("sees", asking(image(b"no image")), "messages[0].content[1].image_url.url", "no image that can be read"),
        ("sees", asking(image(animation("GIF"))), "messages[0].content[1].image_url.url", "animated"),
        ("sees", asking(image(png_of_size(60_000, 60_000))), "messages[0].content[1].image_url.url", "pixels"),
        ("sees", asking(image(PNG[:90])), "messages[0].content[1].image_url.url", "cut off or damaged"),
        ("sees", asking(*[image()] * 33), "messages[0].content[33].image_url.url", "33 images; at most 32"),
        ("sees", asking(image(detail="ultra")), "messages[0].content[1].image_url.detail", "detail"),
        ("sees", asking({"type": "image_url"}), "messages[0].content[1].image_url", "image_url"),
        ("sees", asking({"type": "image_url", "image_url": "data:"}), "messages[0].content[1].image_url", "image_url"),
        ("sees", asking(image(size=3)), "messages[0].content[1].image_url.size", "Unknown parameter"),
        (
            "sees",
            asking({"type": "image_url", "image_url": {"url": "http://127.0.0.1/a.png"}}),
            "messages[0].content[1].image_url.url",
            "this server fetches no images",
        ),
        (
            "sees",
            {"role": "assistant", "content": [image()]},
            "messages[0].content[0]",
            "images can only be in a user's message",
        ),
        ("sees", asking(image(b"\0" * 10_000_001)), "messages[0].content[1].image_url.url", "at most 10000000"),
    ],
)
async def test_what_cannot_be_taken_is_a_400_and_leaves_no_trace(
    model: str, message: dict[str, Any], param: str, says: str
) -> None:
    """The answer names the place and what is wrong; the log is as it was."""
    async with seeing_server(limits=HttpLimits(body_bytes_max=40_000_000)) as running:
        refused = await running.chat(model=model, session_id="s", messages=[message])
        error = refused.json()["error"]
        assert (refused.status_code, error["param"]) == (400, param), error
        assert says in error["message"]
        assert await running.log() == []


async def test_a_body_over_the_limit_is_refused_as_such() -> None:
    """A data URL of 20 MB does not get past the bound on bodies."""
    async with seeing_server(limits=HttpLimits(body_bytes_max=10_000_000)) as running:
        refused = await running.chat(model="sees", messages=[asking(image(b"\0" * 15_000_000))])
        assert (refused.status_code, refused.json()["error"]["code"]) == (413, "request_too_large")
