"""Models that cannot be loaded, or refuse what they are given: the cause is named, and nothing is left running."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from manent.domain.errors import InvalidValue, ModelLoadError
from manent.domain.messages import Role
from manent.domain.model_events import ModelLoadFailed
from tests.support.engines import (
    MODEL,
    RecordedEvents,
    collect,
    parameters,
    request,
    runner_engine,
    said,
    user,
)
from tests.support.runners import runners_of


@pytest.fixture
def copy(starter_model: Path, tmp_path: Path) -> Path:
    """A copy of the model's folder to break; weights are linked, not copied."""
    folder = tmp_path / "model"
    folder.mkdir()
    for file in starter_model.iterdir():
        (folder / file.name).symlink_to(file)
    return folder


def rewrite(file: Path, text: str | bytes) -> None:
    """Replace a link by a file of this content."""
    file.unlink()
    file.write_bytes(text.encode() if isinstance(text, str) else text)


def change_config(folder: Path, **changes: object) -> None:
    """Change keys of config.json."""
    config = json.loads((folder / "config.json").read_text())
    rewrite(folder / "config.json", json.dumps(config | changes))


def cut_weights(folder: Path) -> None:
    """Cut the weights off, as an interrupted download does."""
    with (folder / "model.safetensors").open("rb") as stream:
        rewrite(folder / "model.safetensors", stream.read(1_000_000))


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (shutil.rmtree, "does not exist; download the model or correct its path"),
    "config broken": (lambda f: rewrite(f / "config.json", "{oops"), "config.json is not valid JSON"),
    "weights cut off": (cut_weights, "is cut off: it has 1000000 bytes"),
    "tokenizer broken": (lambda f: rewrite(f / "tokenizer.json", "{oops"), "tokenizer"),
    "unknown kind": (lambda f: change_config(f, model_type="no_such_model"), "no_such_model"),
    "other shape": (lambda f: change_config(f, num_hidden_layers=31), "could not be loaded"),
    "heads that do not divide": (lambda f: change_config(f, num_attention_heads=7, num_key_value_heads=2), "model"),
}


@pytest.mark.parametrize(("break_it", "says"), BREAKS.values(), ids=BREAKS)
async def test_a_broken_model_says_what_is_wrong(copy: Path, break_it: Callable[[Path], object], says: str) -> None:
    """The error names the cause, an event records it, and nothing is left running."""
    break_it(copy)
    events = RecordedEvents()
    async with runner_engine(copy, events=events) as engine:
        with pytest.raises(ModelLoadError, match=says) as caught:
            await engine.render(MODEL, [user("Hi")])
        assert runners_of(os.getpid()) == []
    assert caught.value.code == "model_load_failed"
    (event,) = events
    assert isinstance(event, ModelLoadFailed)
    assert event.reason == caught.value.message


async def test_a_broken_model_is_not_loaded_again_and_again(copy: Path) -> None:
    """Callers within the failure memory share one attempt; a later one tries again, and works once it is mended."""
    config = (copy / "config.json").read_bytes()
    rewrite(copy / "config.json", "{oops")
    events = RecordedEvents()
    async with runner_engine(copy, events=events, failure_memory_s=0.5) as engine:
        for _ in range(3):
            ends = await asyncio.gather(*(engine.render(MODEL, [user("Hi")]) for _ in range(5)), return_exceptions=True)
            assert {type(end) for end in ends} == {ModelLoadError}
        assert events.names == ["ModelLoadFailed"]
        rewrite(copy / "config.json", config)
        await asyncio.sleep(0.6)
        await engine.render(MODEL, [user("Hi")])
    assert events.names == ["ModelLoadFailed", "ModelLoaded", "ModelUnloaded"]


async def test_a_template_that_refuses_is_the_clients_mistake(copy: Path) -> None:
    """What the template says reaches the client; counting falls back to an estimate; the runner goes on."""
    template = (
        "{% if messages[0]['role'] != 'user' %}{{ raise_exception('Conversations must start with the user') }}"
        "{% endif %}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
    )
    set_template(copy, template)
    async with runner_engine(copy) as engine:
        with pytest.raises(InvalidValue, match="Conversations must start with the user") as caught:
            await engine.render(MODEL, [said(Role.ASSISTANT, "Hello")])
        assert caught.value.param == "messages"
        counts = await engine.count_tokens(MODEL, [user("a b c"), said(Role.ASSISTANT, "d e"), user("f")])
        assert all(3 <= count <= 12 for count in counts)
        prompt = await engine.render(MODEL, [user("Hello")])
        assert (await collect(engine, request(prompt, parameters(max_tokens=2))))[1].usage.completion_tokens == 2


def set_template(folder: Path, template: str) -> None:
    """Give a model another chat template, wherever it keeps its own."""
    config = json.loads((folder / "tokenizer_config.json").read_text())
    rewrite(folder / "tokenizer_config.json", json.dumps(config | {"chat_template": template}))
    if (folder / "chat_template.jinja").exists():
        rewrite(folder / "chat_template.jinja", template)
