"""Plugins: the two examples of the documents in a real server, and those that raise at import, at start, in use."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import httpx
import pytest

from manent.adapters.plugins.engine import started_engine
from manent.adapters.plugins.loading import load_plugins
from manent.app.plugins import plugin_engine
from manent.app.settings import Settings
from manent.domain.extensions import AnswerFacts, EngineContext, PluginError, Refusal, RequestFacts
from manent.domain.usecases.run_middleware import MiddlewareChain
from tests.support.plugins import install_example, install_module
from tests.support.server import manent_process, serving

FACTS = RequestFacts(
    operation="createChatCompletion",
    method="POST",
    path="/v1/chat/completions",
    tenant="acme",
    subject="ann",
    request_id="r1",
    correlation_id=None,
)
ANSWER = AnswerFacts(status=200, elapsed_s=0.1)
CHAT = {"model": "default", "messages": [{"role": "user", "content": "What is written remains."}]}
ODD = """
from contextlib import asynccontextmanager
from manent_echo_engine import echo_engine


class Odd:
    async def before(self, request):
        if request.operation == "listModels":
            raise RuntimeError("odd before")

    async def after(self, request, answer):
        print(f"odd saw {request.operation} {answer.status}", flush=True)
        raise RuntimeError("odd after")


@asynccontextmanager
async def flaky(context):
    async with echo_engine(context) as engine:
        generate = engine.generate

        async def fail(request):
            async for item in generate(request):
                yield item
                if "boom" in engine.rendered[-1][-1].text:
                    raise RuntimeError("flaky engine")

        engine.generate = fail
        yield engine


def unable():
    raise RuntimeError("unable to start")


def half():
    return object()


@asynccontextmanager
async def stillborn(context):
    raise RuntimeError("no such device")
    yield


number = 7
"""
POINTS = {
    "manent.middleware": {
        "odd": "manent_odd:Odd",
        "unable": "manent_odd:unable",
        "half": "manent_odd:half",
        "number": "manent_odd:number",
        "absent": "manent_odd:absent",
        "gone": "manent_gone:Gone",
    },
    "manent.engines": {"flaky": "manent_odd:flaky", "stillborn": "manent_odd:stillborn"},
}


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path, of this process and those that it starts, with both examples and odd plugins."""
    folder = tmp_path / "site"
    folder.mkdir()
    install_example("maintenance", folder)
    install_example("echo-engine", folder)
    install_module(folder, "manent_odd", ODD, POINTS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return folder


@pytest.mark.timeout(60)
def test_a_server_with_plugins(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The examples do what they say; what raises in use fails its own requests, by name in the log, and no other's."""
    announced, home = tmp_path / "maintenance", tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("MAINTENANCE_FILE", str(announced))
    with serving(home, engine="flaky", plugins="maintenance, odd, flaky") as server:
        with httpx.Client(base_url=server.address, timeout=30) as client:
            answer = client.post("/v1/chat/completions", json=CHAT).raise_for_status().json()
            assert answer["choices"][0]["message"]["content"] == "What is written remains."
            announced.write_text("back at noon", encoding="utf-8")
            refused = client.post("/v1/chat/completions", json=CHAT)
            assert (refused.status_code, refused.json()["error"]["message"]) == (403, "back at noon")
            assert refused.json()["error"]["code"] == "refused_by_middleware"
            assert client.get("/v1/events").status_code == 200
            assert client.get("/health/live").status_code == 200
            announced.unlink()
            assert client.get("/v1/models").status_code == 500
            broken = client.post(
                "/v1/chat/completions", json={"model": "default", "messages": [{"role": "user", "content": "boom"}]}
            )
            assert (broken.status_code, "flaky" in broken.text) == (500, False)
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            (failed,) = client.get("/v1/events", params={"type": "CompletionFailed"}).json()["data"]
            assert failed["payload"]["code"] == "internal_error"
        assert server.stop() == 0
    output = "".join(server.output)
    assert "the plugin 'odd' failed before listModels (RuntimeError)" in output
    assert "the plugin 'odd' failed after createChatCompletion" in output
    assert "the engine 'flaky' failed in generate (RuntimeError)" in output
    assert "odd saw createChatCompletion 500" in output


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("maintenence", "did you mean 'maintenance'?"),
        ("gone", r"the plugin 'gone' \(manent-odd 0.1\) cannot be imported: ModuleNotFoundError"),
        ("absent", "'absent' .* cannot be imported: AttributeError"),
        ("unable", "'unable' .* cannot be started: RuntimeError.*unable to start"),
        ("half", "'half' .* made object, which lacks `before` or `after`"),
        ("number", "'number' .* cannot be called"),
    ],
)
def test_a_plugin_that_cannot_be_loaded_is_named(installed: Path, name: str, says: str) -> None:
    """With its package, and what is wrong with it."""
    with pytest.raises(PluginError, match=says):
        load_plugins([name])


def test_nothing_is_loaded_unasked(installed: Path) -> None:
    """Broken plugins that are installed and not named harm nobody."""
    assert load_plugins([]).middleware == {}
    assert list(load_plugins(["maintenance"]).middleware) == ["maintenance"]


@pytest.mark.timeout(60)
def test_a_server_does_not_start_without_what_was_asked_for(installed: Path, tmp_path: Path) -> None:
    """A plugin may be what protects it: without it nothing is served; the message names it."""
    done = manent_process("serve", home=tmp_path, engine="stillborn", plugins="stillborn")
    assert "the engine 'stillborn' cannot be started: RuntimeError" in done.stderr
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)


@pytest.mark.parametrize(("engine", "says"), [("ecko", "did you mean 'echo'?"), ("metal", "mlx, scripted, echo")])
def test_an_engine_that_nobody_brings_is_told(installed: Path, engine: str, says: str) -> None:
    """With the nearest name, or all of them."""
    with pytest.raises(PluginError) as raised:
        plugin_engine(Settings(engine=engine, _env_file=None), load_plugins(["echo"]))
    assert says in str(raised.value)


class Recording:
    """A middleware that says what it was asked; ``fails`` is raised before."""

    def __init__(self, name: str, seen: list[str], fails: Exception | None = None, waits_s: float = 0.0) -> None:
        self._name = name
        self._seen = seen
        self._fails = fails
        self._waits_s = waits_s

    async def before(self, request: RequestFacts) -> None:
        """See ``Middleware.before``."""
        self._seen.append(f"{self._name} before {request.operation}")
        await asyncio.sleep(self._waits_s)
        if self._fails is not None:
            raise self._fails

    async def after(self, request: RequestFacts, answer: AnswerFacts) -> None:
        """See ``Middleware.after``."""
        self._seen.append(f"{self._name} after {answer.status}")


async def test_middleware_stands_around_in_order() -> None:
    """First in, last out."""
    seen: list[str] = []
    chain = MiddlewareChain({"a": Recording("a", seen), "b": Recording("b", seen)})
    await chain.after(await chain.before(FACTS), FACTS, ANSWER)
    operation = FACTS.operation
    assert seen == [f"a before {operation}", f"b before {operation}", "b after 200", "a after 200"]


@pytest.mark.parametrize(
    ("wrong", "raised"),
    [
        (Recording("b", [], Refusal("no")), Refusal),
        (Recording("b", [], RuntimeError("broken")), PluginError),
        (Recording("b", [], waits_s=5.0), PluginError),
    ],
    ids=["refuses", "raises", "hangs"],
)
async def test_who_comes_behind_a_refusal_is_not_asked(wrong: Recording, raised: type[Exception]) -> None:
    """Neither where one refuses, nor where it fails, nor where it hangs beyond the bound."""
    seen: list[str] = []
    chain = MiddlewareChain({"b": wrong, "c": Recording("c", seen)}, timeout_s=0.05)
    with pytest.raises(raised):
        await chain.before(FACTS)
    assert seen == []


async def test_an_engine_is_entered_and_left(installed: Path, tmp_path: Path) -> None:
    """What its methods return passes unchanged, plain or awaited."""
    factory = load_plugins(["echo"]).engines["echo"]
    context = EngineContext(home=tmp_path, models_file=tmp_path / "models.toml", models_folder=tmp_path)
    async with started_engine("echo", factory, context) as engine:
        assert [card.model_id for card in engine.models()] == ["echo"]
        assert (await engine.load("default")).model_id == "echo"
        assert engine.problems() == {}
