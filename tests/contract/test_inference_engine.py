"""The contract of the inference port, over the scripted engine and over a real runner with the starter model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from manent.adapters.inference.script import Script
from manent.adapters.inference.scripted import ScriptedEngine
from manent.domain.caching import CacheUse
from manent.domain.errors import InvalidValue, ModelNotFound
from manent.domain.generation import FinishReason, GenerationResult, TextDelta
from manent.domain.messages import Role
from manent.domain.ports import InferenceEngine
from manent.domain.prompts import TextPrompt
from tests.support.engines import CARD, MODEL, answer, collect, parameters, request, runner_engine, said, user
from tests.support.pictures import picture, shown

# Numbers are never what ends a stop string by chance, and the starter model counts happily.
COUNT = "Count from 1 to 20, separated by commas."


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["scripted", "runner"])
async def engine(request: pytest.FixtureRequest, starter_model: Path) -> AsyncGenerator[InferenceEngine, None]:
    """Each implementation of the port, with one model."""
    if request.param == "scripted":
        yield ScriptedEngine(Script(pieces=("1", ",", " 2", ",", " 3", ",", " 4")), cards=[CARD])
    else:
        async with runner_engine(starter_model) as runner:
            yield runner


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_model_is_found_by_id_and_by_alias(engine: InferenceEngine) -> None:
    """Both names lead to the same card, which the registry lists."""
    card = engine.resolve(MODEL)
    assert engine.resolve("default").model_id == card.model_id == MODEL
    assert [listed.model_id for listed in engine.models()] == [MODEL]


async def test_an_unknown_model_is_not_found(engine: InferenceEngine) -> None:
    """Also where only the case differs: ids are exact."""
    for name in ("nobody", MODEL.upper(), ""):
        with pytest.raises(ModelNotFound):
            engine.resolve(name)


async def test_rendering_is_a_function_of_the_messages(engine: InferenceEngine) -> None:
    """Equal conversations have equal prompts, longer ones longer prompts, whatever the ids of their messages are."""
    short = [said(Role.SYSTEM, "Be brief."), user("Hello there")]
    longer = [*short, said(Role.ASSISTANT, "Hi"), user("And now?")]
    one, other = await engine.render(MODEL, short), await engine.render(MODEL, longer)
    assert await engine.render(MODEL, short) == one
    assert 0 < len(one.token_ids) < len(other.token_ids)


async def test_a_model_that_reads_text_refuses_images(engine: InferenceEngine) -> None:
    """It would answer as if they were not there."""
    for ask in (engine.render, engine.explain):
        with pytest.raises(InvalidValue, match="reads text alone"):
            await ask(MODEL, [shown("What is this?", picture())])


async def test_a_prompt_is_explained_as_it_is_rendered(engine: InferenceEngine) -> None:
    """The same tokens as for a generation, their text, and what the answer's provenance says of the model."""
    messages = [said(Role.SYSTEM, "Be brief."), user("Hello there")]
    explained = await engine.explain(MODEL, messages)
    rendered = await engine.render(MODEL, messages)
    assert explained.rendered.token_ids == rendered.token_ids
    assert "Hello there" in explained.text
    _, result = await collect(engine, request(explained.rendered, parameters(max_tokens=2)))
    assert rendered.made_by == explained.made_by
    assert replace(result.provenance, batch_size_max=0, batch_sizes={}, cache=CacheUse()) == explained.made_by


async def test_a_prompt_without_a_template_is_tokenized(engine: InferenceEngine) -> None:
    """A text and its tokens are one prompt; an empty one has a token too, and one that the model lacks is refused."""
    explained = await engine.tokenize(MODEL, TextPrompt(text="Once upon a time"))
    token_ids = explained.rendered.token_ids
    assert (explained.text, explained.rendered.raw) == ("Once upon a time", True)
    again = await engine.tokenize(MODEL, TextPrompt(token_ids=token_ids))
    assert again.rendered.token_ids == token_ids
    assert (await engine.tokenize(MODEL, TextPrompt(text=""))).rendered.token_ids
    with pytest.raises(InvalidValue, match="token ids are 0 to") as refused:
        await engine.tokenize(MODEL, TextPrompt(token_ids=(1, explained.rendered.vocabulary_size)))
    assert refused.value.param == "prompt"


async def test_a_prompt_without_a_template_is_continued_to_the_letter(engine: InferenceEngine) -> None:
    """Prompt and answer together are what all of their tokens say: no space is lost between them."""
    explained = await engine.tokenize(MODEL, TextPrompt(text="One, two, three, four,"))
    deltas, result = await collect(engine, request(explained.rendered, parameters(max_tokens=6)))
    assert "".join(delta.text for delta in deltas) == result.text
    if isinstance(engine, ScriptedEngine):  # what tokens say is nothing that a script knows
        return
    together = TextPrompt(token_ids=(*explained.rendered.token_ids, *result.token_ids))
    assert (await engine.tokenize(MODEL, together)).text == explained.text + result.text
    assert result.text.startswith(" five")


async def test_each_message_is_counted(engine: InferenceEngine) -> None:
    """There is a count for each message; longer messages count more; together they come near the whole prompt."""
    messages = [
        said(Role.SYSTEM, "Be brief."),
        user("word " * 50),
        said(Role.ASSISTANT, "Yes."),
        user("word " * 100),
    ]
    counts = await engine.count_tokens(MODEL, messages)
    whole = len((await engine.render(MODEL, messages)).token_ids)
    assert len(counts) == 4
    assert min(counts) > 0
    assert counts[3] > counts[1] > counts[0]
    assert sum(counts) <= whole <= sum(counts) + 16
    assert await engine.count_tokens(MODEL, []) == ()


async def test_the_result_is_the_sum_of_the_deltas(engine: InferenceEngine) -> None:
    """Text, token ids and counts of the result are those of the deltas, to the letter."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    deltas, result = await collect(engine, request(prompt, parameters(max_tokens=6)))
    assert result.text == "".join(delta.text for delta in deltas) != ""
    assert result.token_ids == tuple(token for delta in deltas for token in delta.token_ids)
    assert result.usage.prompt_tokens == len(prompt.token_ids)
    assert result.usage.completion_tokens == len(result.token_ids) == 6
    assert result.finish_reason is FinishReason.LENGTH
    assert result.provenance.weights_digest.startswith("sha256:")
    assert min(result.timings.queue_s, result.timings.prefill_s, result.timings.decode_s) >= 0


@pytest.mark.parametrize("max_tokens", [1, 2, 3])
async def test_max_tokens_is_exact(engine: InferenceEngine, max_tokens: int) -> None:
    """Not one token more, and the reason says so."""
    result = await answer(engine, COUNT, parameters(max_tokens=max_tokens))
    assert (result.usage.completion_tokens, result.finish_reason) == (max_tokens, FinishReason.LENGTH)


async def test_a_stop_string_ends_the_text_before_it(engine: InferenceEngine) -> None:
    """The text up to the stop string, and nothing of it, in result and deltas alike."""
    whole = (await answer(engine, COUNT, parameters(max_tokens=7))).text
    stop = whole[3:5]
    prompt = await engine.render(MODEL, [user(COUNT)])
    deltas, result = await collect(engine, request(prompt, parameters(max_tokens=7, stop=["never", stop])))
    assert result.text == whole[: whole.find(stop)]
    assert result.choices[0].stop_sequence == stop
    assert "".join(delta.text for delta in deltas) == result.text
    assert result.finish_reason is FinishReason.STOP
    assert result.usage.completion_tokens <= 7


async def test_the_same_seed_gives_the_same_answer(engine: InferenceEngine) -> None:
    """Sampling is a function of prompt, parameters and seed."""
    sampled = parameters(max_tokens=8, temperature=1.0, top_p=0.9, seed=42)
    first, second = [await answer(engine, COUNT, sampled) for _ in range(2)]
    assert first.token_ids == second.token_ids


async def test_requests_run_beside_each_other(engine: InferenceEngine) -> None:
    """Concurrent requests all end, each with what it gets alone."""
    alone = await answer(engine, COUNT, parameters(max_tokens=5))
    together = await asyncio.gather(*(answer(engine, COUNT, parameters(max_tokens=5)) for _ in range(4)))
    assert [result.text for result in together] == [alone.text] * 4


async def test_closing_a_generation_leaves_the_engine_usable(engine: InferenceEngine) -> None:
    """A client that goes away takes nothing with it."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    stream = engine.generate(request(prompt, parameters(max_tokens=500)))
    assert isinstance(await anext(stream), TextDelta)
    await stream.aclose()
    assert (await answer(engine, COUNT, parameters(max_tokens=3))).usage.completion_tokens == 3


async def test_the_result_comes_last_and_once(engine: InferenceEngine) -> None:
    """After the result the stream ends."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    outputs = [output async for output in engine.generate(request(prompt, parameters(max_tokens=3)))]
    assert [isinstance(output, GenerationResult) for output in outputs] == [False] * (len(outputs) - 1) + [True]


async def test_choices_add_up_one_by_one(engine: InferenceEngine) -> None:
    """Each delta names its choice; choice 0 is the answer to n = 1; usage counts the prompt once and all choices."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    sampled: dict[str, Any] = {"max_tokens": 5, "temperature": 1.0, "seed": 3}
    deltas, result = await collect(engine, request(prompt, parameters(n=3, **sampled)))
    assert len(result.choices) == 3
    for index, choice in enumerate(result.choices):
        assert choice.text == "".join(delta.text for delta in deltas if delta.index == index)
        assert choice.token_ids == tuple(t for delta in deltas if delta.index == index for t in delta.token_ids)
    assert result.usage.prompt_tokens == len(prompt.token_ids)
    assert result.usage.completion_tokens == sum(len(choice.token_ids) for choice in result.choices)
    single = (await collect(engine, request(prompt, parameters(**sampled))))[1]
    assert single.token_ids == result.token_ids


async def test_log_probabilities_spell_the_text(engine: InferenceEngine) -> None:
    """One entry a shown token, its bytes the text's, the most probable tokens best first; without asking, none."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    deltas, result = await collect(engine, request(prompt, parameters(max_tokens=6, logprobs=True, top_logprobs=3)))
    told = result.choices[0].logprobs
    assert told == tuple(entry for delta in deltas for entry in delta.logprobs) != ()
    assert b"".join(entry.chosen.token_bytes for entry in told).decode().strip() == result.text.strip()
    for entry in told:
        assert len(entry.top) == 3
        assert [top.logprob for top in entry.top] == sorted((top.logprob for top in entry.top), reverse=True)
        assert entry.chosen == entry.top[0]
        assert entry.chosen.logprob <= 0
    assert (await answer(engine, COUNT, parameters(max_tokens=2))).choices[0].logprobs == ()


async def test_a_stop_token_ends_the_text(engine: InferenceEngine) -> None:
    """It is counted."""
    whole = await answer(engine, COUNT, parameters(max_tokens=6))
    stop = whole.token_ids[3]
    result = await answer(engine, COUNT, parameters(max_tokens=6, stop_token_ids=(stop,)))
    first = whole.token_ids.index(stop)
    assert result.token_ids == whole.token_ids[: first + 1]
    assert result.finish_reason is FinishReason.STOP


async def test_a_prompt_comes_with_the_size_of_its_vocabulary(engine: InferenceEngine) -> None:
    """All of its token ids are below it."""
    prompt = await engine.render(MODEL, [user(COUNT)])
    assert max(prompt.token_ids) < prompt.vocabulary_size
