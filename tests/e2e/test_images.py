"""Images from the official client to a real vision model, and what the log and the command line say of them."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai import BadRequestError, OpenAI

from tests.support.commands import manent
from tests.support.pictures import GREEN, data_url, picture
from tests.support.said import every_way
from tests.support.server import Server

SESSION = "with-images"


def look(*files: bytes) -> Any:
    """A user's message that shows files."""
    images = [{"type": "image_url", "image_url": {"url": data_url(file)}} for file in files]
    return {"role": "user", "content": [*images, {"type": "text", "text": "What is this?"}]}


def outcomes(server: Server) -> list[dict[str, Any]]:
    """The CompletionGenerated events of the session, oldest first."""
    events = manent(
        "events", "--type", "CompletionGenerated", "--stream", f"session-{SESSION}", "--json", home=server.home
    )
    assert events.returncode == 0, events.stderr
    return [json.loads(line)["payload"] for line in events.stdout.splitlines()]


def test_a_conversation_about_images(server: Server, client: OpenAI) -> None:
    """Streamed and not, over two turns: the second reuses what the first saw, and all of it can be looked at later."""
    with client.chat.completions.create(
        model="vision",
        messages=[look(picture())],
        max_tokens=6,
        temperature=0,
        stream=True,
        extra_body={"session_id": SESSION},
    ) as stream:
        chunks = list(stream)
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    second = client.chat.completions.create(
        model="vision",
        messages=[look(picture(color=GREEN))],
        max_tokens=6,
        temperature=0,
        extra_body={"session_id": SESSION},
    )
    assert second.usage is not None
    first, other = outcomes(server)
    assert first["provenance"]["images"] == {"count": 1, "tokens": 4, "reused": 0}
    assert other["provenance"]["images"] == {"count": 2, "tokens": 8, "reused": 1}
    assert first["token_ids"] != other["token_ids"]

    context = httpx.get(f"{server.address}/v1/chat/completions/{second.id}/context", timeout=60).json()
    assert context["verdict"] == "matches"
    assert [len(message["content_parts"] or []) for message in context["messages"]] == [2, 0, 2]
    replayed = manent("replay", SESSION, home=server.home)
    assert replayed.stdout.count("[image/png, 64 x 64 pixels, sha256:") == 2
    verified = manent("log", "verify", home=server.home)
    assert verified.returncode == 0, verified.stdout


def test_images_streamed_or_not_alone_or_in_a_batch(client: OpenAI) -> None:
    """The same answer on every way, and another one where the image is another."""
    asked = {"model": "vision", "max_tokens": 6, "temperature": 0}
    green, other = (
        every_way(client, {**asked, "messages": [look(file)]}) for file in (picture(color=GREEN), picture())
    )
    assert green != other


def test_a_text_model_says_that_it_reads_text(client: OpenAI) -> None:
    """The refusal names the model, and where to look for one that reads images."""
    with pytest.raises(BadRequestError, match="reads text alone"):
        client.chat.completions.create(model="default", messages=[look(picture())])
    assert [model.id for model in client.models.list() if "image" in model.model_dump()["input_modalities"]] == [
        "vision"
    ]
