"""The prefix cache of a real runner with the real starter model: turns, restarts, tenants, and being forgotten."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from manent.adapters.inference.engine import RunnerEngine
from manent.adapters.inference.prefix_settings import PrefixSettings, PrefixTags
from manent.adapters.inference.prefix_stats import PrefixStats
from manent.adapters.inference.registry import RegisteredModel
from manent.domain.caching import CacheMiss, CacheScope
from manent.domain.generation import GenerationResult
from manent.domain.messages import Message, Role
from tests.support.engines import CARD, MODEL, collect, engine_of, request, running, said, supervisor_settings, user
from tests.support.sampling import parameters

CONVERSATION = CacheScope(tenant="acme", conversation="s1", durable=True)
LONG = "Here is a list of things: " + ", ".join(f"thing number {number}" for number in range(15))
TURN = [said(Role.SYSTEM, LONG), user("What is the third thing of the list?")]


@asynccontextmanager
async def engine_with_cache(model: Path, folder: Path) -> AsyncGenerator[RunnerEngine, None]:
    """An engine on the starter model; its prefix caches are in the folder."""
    prefix = PrefixSettings(
        folder=folder, memory_bytes=10**9, disk_bytes=10**9, tags=PrefixTags.of_file(folder / "keys" / "secret")
    )
    settings = dataclasses.replace(supervisor_settings(model.parent), prefix=prefix)
    async with engine_of([RegisteredModel(card=CARD, path=model)], settings) as engine:
        yield engine


async def say(
    engine: RunnerEngine, messages: list[Message], *, scope: CacheScope | None = CONVERSATION
) -> GenerationResult:
    """The greedy answer."""
    prompt = await engine.render(MODEL, messages)
    asked = dataclasses.replace(request(prompt, parameters(max_tokens=12)), cache=scope)
    return (await collect(engine, asked))[1]


async def stats(engine: RunnerEngine) -> PrefixStats:
    """What the runner counted."""
    return (await running(engine).ping()).prefix


@pytest.mark.asyncio
async def test_a_conversation_goes_on_where_it_was_also_after_a_restart(starter_model: Path, tmp_path: Path) -> None:
    """Every turn reuses the turn before, answers as without a cache, and says what was reused and why no more."""
    async with engine_with_cache(starter_model, tmp_path) as engine:
        first = await say(engine, TURN)
        assert (first.usage.cached_tokens, first.provenance.cache.miss) == (0, CacheMiss.COLD)
        dialog = [*TURN, said(Role.ASSISTANT, first.text), user("And the fourth one?")]
        second = await say(engine, dialog)
        assert second.usage.cached_tokens >= first.usage.prompt_tokens
        assert second.provenance.cache.source == "memory"
        cold = await say(engine, dialog, scope=None)
        assert (cold.usage.cached_tokens, cold.provenance.cache.miss) == (0, CacheMiss.DISABLED)
        assert second.text == cold.text
        other = await say(engine, dialog, scope=CacheScope(tenant="other", conversation="s1"))
        assert (other.usage.cached_tokens, other.provenance.cache) == (0, first.provenance.cache)
        counted = await stats(engine)
        assert (counted.hits, counted.misses["cold"], counted.failures) == (1, 2, 0)
        assert counted.memory_bytes > 10**6
    async with engine_with_cache(starter_model, tmp_path) as engine:
        again = await say(engine, dialog)
        assert again.text == second.text
        assert again.provenance.cache.source == "disk"
        assert again.usage.cached_tokens >= first.usage.prompt_tokens


@pytest.mark.asyncio
async def test_a_forgotten_conversation_is_cold_again(starter_model: Path, tmp_path: Path) -> None:
    """In the runner and on disk; and what other conversations of the tenant said stays."""
    other = CacheScope(tenant="acme", conversation="s2", durable=True)
    async with engine_with_cache(starter_model, tmp_path) as engine:
        await say(engine, TURN)
        await say(engine, [user(LONG), user("Another one.")], scope=other)
        await engine.forget("acme", "s1")
        assert (await say(engine, TURN, scope=CacheScope(tenant="acme"))).usage.cached_tokens == 0
        assert (await say(engine, [user(LONG), user("Another one.")], scope=other)).usage.cached_tokens > 0
        await engine.forget("acme")
        assert (await stats(engine)).memory_bytes == 0
    assert list(tmp_path.glob("*/*/*.safetensors")) == []  # noqa: ASYNC240 (a few names in a test's own folder)


@pytest.mark.asyncio
async def test_the_history_of_a_prompt_is_told_from_the_question(starter_model: Path, tmp_path: Path) -> None:
    """What the template puts behind the last message is not part of it."""
    async with engine_with_cache(starter_model, tmp_path) as engine:
        prompt = await engine.render(MODEL, TURN)
        longer = await engine.render(MODEL, [*TURN, said(Role.ASSISTANT, "Thing two.")])
        assert 0 < prompt.history_tokens < len(prompt.token_ids)
        assert longer.token_ids[: prompt.history_tokens] == prompt.token_ids[: prompt.history_tokens]
