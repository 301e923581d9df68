"""A real runner with a tiny vision model: what it sees, what it keeps, and what it does beside others."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from mlx_lm.utils import load_tokenizer
from mlx_vlm.utils import load_processor

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.prefix_settings import PrefixSettings, PrefixTags
from manent.adapters.inference.protocol import Failed, Render, Rendered
from manent.adapters.inference.registry import RegisteredModel
from manent.adapters.inference.vision_prompts import PromptImages, VisionRenderer
from manent.domain.caching import CacheScope
from manent.domain.embedding import ModelType
from manent.domain.errors import GenerationFailed, InvalidValue
from manent.domain.generation import GenerationResult
from manent.domain.images import ImagesUsed
from manent.domain.messages import Message, Role
from tests.support.engines import CARD, MODEL, collect, engine_of, request, running, said, supervisor_settings, user
from tests.support.pictures import GREEN, picture, shown
from tests.support.sampling import parameters
from tests.support.tiny_vision import FIRST_TOKEN, make_tiny_vision_model

SEES = dataclasses.replace(CARD, type=ModelType.VLM, context_length=2048)
RED_PNG, GREEN_PNG, WIDE_JPEG = picture(), picture(color=GREEN), picture(width=160, kind="JPEG")

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model(starter_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the model."""
    return make_tiny_vision_model(tmp_path_factory.mktemp("models") / "tiny", starter=starter_model)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path, tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[RunnerEngine, None]:
    """An engine on the model, with everything that it may keep."""
    folder = tmp_path_factory.mktemp("prefix")
    prefix = PrefixSettings(
        folder=folder, memory_bytes=10**9, disk_bytes=10**9, tags=PrefixTags.of_file(folder / "keys" / "secret")
    )
    settings = dataclasses.replace(supervisor_settings(model.parent), prefix=prefix)
    async with engine_of([RegisteredModel(card=SEES, path=model)], settings) as made:
        yield made


def of(tenant: str) -> CacheScope:
    """A scope that no other test uses."""
    return CacheScope(tenant=tenant, conversation="c", durable=True)


async def see(
    engine: RunnerEngine, *messages: Message, scope: CacheScope | None = None, max_tokens: int = 8, **effective: Any
) -> GenerationResult:
    """The greedy answer."""
    prompt = await engine.render(MODEL, messages)
    asked = request(prompt, parameters(max_tokens=max_tokens, **effective))
    return (await collect(engine, dataclasses.replace(asked, cache=scope)))[1]


def used(result: GenerationResult) -> ImagesUsed:
    """What its images came to."""
    assert result.provenance.images is not None
    return result.provenance.images


async def test_other_images_are_other_prompts_and_other_answers(engine: RunnerEngine) -> None:
    """Of the same size they are the same tokens, but neither the same prompt nor the same answer."""
    prompts = [await engine.render(MODEL, [shown("What is this?", file)]) for file in (RED_PNG, GREEN_PNG)]
    assert prompts[0].token_ids == prompts[1].token_ids
    assert prompts[0].committed_bytes != prompts[1].committed_bytes
    one, other = [await see(engine, shown("What is this?", file)) for file in (RED_PNG, GREEN_PNG)]
    assert one.token_ids != other.token_ids
    assert (await see(engine, shown("What is this?", RED_PNG))).token_ids == one.token_ids
    assert used(one) == ImagesUsed(count=1, tokens=4, reused=0)
    assert one.provenance.versions["mlx-vlm"]


async def test_the_second_turn_reuses_what_the_first_one_saw(engine: RunnerEngine) -> None:
    """Also beside a new image; the answers are those that there are without anything kept."""
    scope = of("turns")
    first = shown("What is this?", RED_PNG)
    answer = await see(engine, first, scope=scope)
    assert used(answer).reused == 0
    dialog = [first, said(Role.ASSISTANT, answer.text), user("Look again.")]
    second = await see(engine, *dialog, scope=scope)
    assert used(second) == ImagesUsed(count=1, tokens=4, reused=1)
    assert second.token_ids == (await see(engine, *dialog)).token_ids
    third = [*dialog, said(Role.ASSISTANT, second.text), shown("And these?", WIDE_JPEG, RED_PNG)]
    compared = await see(engine, *third, scope=scope)
    assert (used(compared).count, used(compared).reused) == (3, 2)
    assert compared.token_ids == (await see(engine, *third)).token_ids


async def test_what_a_tenant_was_shown_is_its_own_and_can_be_forgotten(engine: RunnerEngine) -> None:
    """Another tenant's image is computed anew, so that nobody learns what others have; to forget is to forget."""
    for tenant in ("ann", "bob"):
        assert used(await see(engine, shown("x", GREEN_PNG), scope=of(tenant))).reused == 0
    assert used(await see(engine, shown("y", GREEN_PNG), scope=of("ann"))).reused == 1
    await engine.forget("ann", "c")
    assert used(await see(engine, shown("z", GREEN_PNG), scope=of("ann"))).reused == 0
    assert used(await see(engine, shown("z", GREEN_PNG), scope=of("bob"))).reused == 1


async def test_answers_in_a_batch_are_those_alone(engine: RunnerEngine) -> None:
    """Images, several of them, and text alone are generated from together, token by token."""
    asked = [
        [shown("What is this?", RED_PNG)],
        [shown("Compare these at some length, please.", WIDE_JPEG, GREEN_PNG)],
        [user("Hello there, who are you?")],
        [user("A long prompt of text alone. " * 20)],
        [shown("And this?", WIDE_JPEG), said(Role.ASSISTANT, "A picture."), user("Of what?")],
    ]
    alone = [await see(engine, *messages, max_tokens=24) for messages in asked]
    together = await asyncio.gather(*(see(engine, *messages, max_tokens=24) for messages in asked))
    assert [result.token_ids for result in together] == [result.token_ids for result in alone]
    assert max(result.provenance.batch_size_max for result in together) > 1


async def test_sampling_stops_and_choices_work_as_for_text(engine: RunnerEngine) -> None:
    """Seeds, choices, log probabilities, stop strings and stop tokens are those of the text runner."""
    message = shown("What is this?", RED_PNG)
    plain = await see(engine, message, max_tokens=6)
    sampled = await see(engine, message, max_tokens=6, temperature=1.0, seed=7, n=2, logprobs=True, top_logprobs=2)
    again = await see(engine, message, max_tokens=6, temperature=1.0, seed=7)
    assert sampled.choices[0].token_ids == again.token_ids
    assert sampled.choices[0].token_ids != sampled.choices[1].token_ids
    assert [len(choice.logprobs) for choice in sampled.choices] == [6, 6]
    stopped = await see(engine, message, max_tokens=6, stop_token_ids=(plain.token_ids[2],))
    assert (stopped.token_ids, stopped.finish_reason) == (plain.token_ids[:3], "stop")
    assert (await see(engine, message, max_tokens=6)).token_ids == plain.token_ids


async def test_counts_are_those_of_the_prompt(engine: RunnerEngine) -> None:
    """Images count with the tokens that they take, told by their sizes; text is split as it is without them."""
    messages = [user("Look:"), shown("What is this?", WIDE_JPEG), said(Role.ASSISTANT, "No idea."), user("Why?")]
    counts = await engine.count_tokens(MODEL, messages)
    prompt = await engine.render(MODEL, messages)
    assert sum(counts) == prompt.history_tokens
    explained = await engine.explain(MODEL, messages)
    assert explained.rendered.token_ids == prompt.token_ids
    assert explained.rendered.committed_bytes == prompt.committed_bytes
    assert explained.text.count("<|image_pad|>") == 1


async def test_a_bad_image_fails_its_request_alone(engine: RunnerEngine) -> None:
    """What got past all checks, by an import say, is refused when it is rendered, and hurts nobody else."""
    bad = shown("What is this?", RED_PNG)
    cut = dataclasses.replace(bad.images[0], data=RED_PNG[:80], digest="sha256:" + "0" * 64)
    bad = dataclasses.replace(bad, images=(cut,))
    pid = running(engine).pid
    steady = asyncio.create_task(see(engine, shown("Go on.", GREEN_PNG), max_tokens=32))
    with pytest.raises(InvalidValue, match=r"image sha256:0+ cannot be read"):
        await engine.render(MODEL, [bad])
    good = await engine.render(MODEL, [shown("What is this?", RED_PNG)])
    with pytest.raises(GenerationFailed):
        await collect(engine, request(dataclasses.replace(good, messages=(bad,)), parameters(max_tokens=2)))
    other = dataclasses.replace(good, messages=(shown("Something else", RED_PNG),))
    with pytest.raises(GenerationFailed, match="rendered otherwise"):
        await collect(engine, request(other, parameters(max_tokens=2)))
    assert len((await steady).token_ids) == 32
    assert running(engine).pid == pid


@pytest.fixture
def blind(model: Path, tmp_path: Path) -> Path:
    """The model with a template that knows text only."""
    folder = tmp_path / "blind"
    folder.mkdir()
    for file in model.iterdir():
        if file.name != "chat_template.jinja":
            (folder / file.name).symlink_to(file)
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['role'] }}: said\n{% endfor %}")
    return folder


async def test_a_template_without_places_for_images_refuses_them(blind: Path) -> None:
    """A model of type vlm whose template knows text only says so, instead of answering about nothing."""
    processor = load_processor(blind, add_detokenizer=False)
    tokenizer = load_tokenizer(blind)  # type: ignore[no-untyped-call]  # mlx-lm's
    renderer = VisionRenderer(tokenizer, PromptImages(processor, image_token_id=FIRST_TOKEN + 2))
    answer = renderer.answer(Render(id=1, messages=(shown("What is this?", RED_PNG),)))
    assert isinstance(answer, Failed)
    assert (answer.code, "0 image placeholders" in answer.message) == ("invalid_value", True)
    assert isinstance(renderer.answer(Render(id=2, messages=(user("Hello"),))), Rendered)
