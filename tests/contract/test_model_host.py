"""The contract of ModelHost, over models without a process and over a real runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
import pytest_asyncio

from manent.adapters.inference.registry import RegisteredModel
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.errors import ModelNotFound
from manent.domain.ports import InferenceEngine
from manent.domain.residency import Phase
from tests.support.engines import CARD, MODEL, engine_of, supervisor_settings
from tests.support.tiny_models import make_tiny_model


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["scripted", "runner"])
async def host(
    request: pytest.FixtureRequest, starter_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[InferenceEngine, None]:
    """Each implementation of the port, with one model."""
    if request.param == "scripted":
        yield ScriptedEngine(cards=[CARD])
        return
    folder = tmp_path_factory.mktemp("host")
    model = RegisteredModel(card=CARD, path=make_tiny_model(folder / "tiny", starter=starter_model, seed=1))
    async with engine_of([model], supervisor_settings(folder)) as engine:
        yield engine


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_models_are_loaded_and_unloaded_by_any_of_their_names(host: InferenceEngine) -> None:
    """Loading what is loaded changes nothing, unloading what is not says so."""
    for name in (MODEL, "default"):
        assert (await host.load(name)).phase is Phase.LOADED
        assert (await host.load(name)).phase is host.status(MODEL).phase is Phase.LOADED
        assert await host.unload(name, by="ann") is True
        assert await host.unload(name, by="ann") is False
        assert host.status(name).phase is Phase.UNLOADED


async def test_pins_show(host: InferenceEngine) -> None:
    """On and off, whether the model is loaded or not."""
    for pinned in (True, True, False):
        assert (await host.pin(MODEL, pinned=pinned, by="ann")).pinned is host.status(MODEL).pinned is pinned


async def test_the_report_adds_up(host: InferenceEngine) -> None:
    """What is used and what is available is the budget for models; the models are those of the registry."""
    await host.load(MODEL)
    report = host.memory()
    assert [model.model_id for model in report.models] == [card.model_id for card in host.models()]
    assert report.used_bytes == sum(model.memory_bytes for model in report.models)
    assert report.used_bytes + report.available_bytes == report.budget.models_bytes
    assert host.problems() == {}


async def test_unknown_models_are_not_found(host: InferenceEngine) -> None:
    """In every question about one."""
    with pytest.raises(ModelNotFound):
        host.status("nobody")
    for ask in (host.load("nobody"), host.unload("nobody", by="ann"), host.pin("nobody", pinned=True, by="ann")):
        with pytest.raises(ModelNotFound):
            await ask
