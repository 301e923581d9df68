"""The prefix cache in a batch, on tiny models of every kind: the same answers, less to evaluate, nothing shared."""

from __future__ import annotations

import random
from concurrent.futures import Future
from pathlib import Path

import mlx.core as mx
import pytest

from manent.adapters.inference.prefix_layers import PrefixLayers
from manent.adapters.inference.protocol import PrefixScope
from manent.domain.caching import CacheMiss, CacheUse
from tests.support.model_kinds import KINDS, VOCABULARY, model_of_kind
from tests.support.tiny_batches import ANN, BOB, answer, answers, asking, tiny_batch, tiny_disk

PROMPT = [random.Random(5).randrange(VOCABULARY) for _ in range(50)]
CUT_BACK = {"llama", "nemotron-nas"}
"""The models whose whole state can be cut back to any token."""


@pytest.mark.parametrize("kind", KINDS)
def test_the_next_turn_reuses_the_last_one_and_says_the_same(kind: str) -> None:
    """Prompt and answer of the first turn need not be evaluated again, whatever the model keeps its state in."""
    model = model_of_kind(kind)
    cold, warm = tiny_batch(model, memory_bytes=0), tiny_batch(model)
    first, reused, use = answer(warm, asking(1, PROMPT))
    assert (first, reused, use.miss) == (answer(cold, asking(1, PROMPT))[0], 0, CacheMiss.COLD)
    second = [*PROMPT, *first, 9, 8, 7]
    told, reused, use = answer(warm, asking(2, second))
    assert told == answer(cold, asking(2, second))[0]
    assert (reused, use.source, use.miss) == (len(PROMPT) + len(first), "memory", None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_template_that_strips_the_answer_still_finds_the_prompt(kind: str) -> None:
    """The next turn parts from what was said behind the history, where every kind of state was kept."""
    model = model_of_kind(kind)
    cold, warm = tiny_batch(model, memory_bytes=0), tiny_batch(model)
    history = len(PROMPT) - 3
    answer(warm, asking(1, PROMPT, history_tokens=history))
    second = [*PROMPT[:history], 5, 6, 7, 5, 6, 7]
    told, reused, use = answer(warm, asking(2, second))
    assert told == answer(cold, asking(2, second))[0]
    assert (reused, use.source) == (history, "memory")


@pytest.mark.parametrize("kind", KINDS)
def test_conversations_with_a_common_beginning_share_it(kind: str) -> None:
    """At once where state can be cut back; elsewhere from the third on, kept where the second one parted."""
    model = model_of_kind(kind)
    cold, warm = tiny_batch(model, memory_bytes=0), tiny_batch(model)
    system, told = PROMPT[:30], {}
    for number in (1, 2, 3):
        prompt = [*system, *[number] * 10]
        told[number] = answer(warm, asking(number, prompt, scope=PrefixScope(tenant="aa", conversation=f"c{number}")))
        assert told[number][0] == answer(cold, asking(number, prompt))[0]
    assert told[3][1] == len(system)
    assert told[2][1] == (len(system) if kind in CUT_BACK else 0)
    assert told[2][2].miss is (CacheMiss.DIVERGED if kind in CUT_BACK else CacheMiss.NOT_TRIMMABLE)
    assert told[2][2].known_tokens == len(system)


@pytest.mark.parametrize("kind", KINDS)
def test_warm_and_cold_together_answer_as_alone(kind: str) -> None:
    """Sequences that begin on caches of different lengths, and others that begin on none, in one batch."""
    model = model_of_kind(kind)
    cold, warm = tiny_batch(model, memory_bytes=0), tiny_batch(model)
    prompts = {n: [*PROMPT[: 10 * n], *[n] * 7] for n in (1, 2, 3, 4)}
    alone = {n: answer(cold, asking(n, prompt))[0] for n, prompt in prompts.items()}
    for n in (2, 3):
        answer(warm, asking(n, prompts[n]))
    together = answers(warm, *[asking(n, prompt) for n, prompt in prompts.items()])
    assert {n: tokens for n, (tokens, _, _) in together.items()} == alone
    for n, prompt in prompts.items():  # and what was kept of them, padded among others as they were, is theirs
        dialog = [*prompt, *alone[n], 9]
        told, reused, _ = answer(warm, asking(n, dialog))
        assert (told, reused) == (answer(cold, asking(n, dialog))[0], len(dialog) - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_kept_is_never_changed(kind: str) -> None:
    """Bit for bit the same after many others went on from it."""
    model = model_of_kind(kind)
    batch = tiny_batch(model)
    first, _, _ = answer(batch, asking(1, PROMPT))
    kept = [(node, node.segment, node.snapshot) for node in batch.prefixes._cache._nodes()]
    before = [_numbers(segment, snapshot) for _, segment, snapshot in kept]
    answers(batch, *[asking(n, [*PROMPT, *first, n, n, n], max_tokens=20) for n in range(2, 7)])
    assert [_numbers(segment, snapshot) for _, segment, snapshot in kept] == before


def _numbers(segment: object, snapshot: object) -> list[list[float]]:
    layers = getattr(segment, "layers", ())
    states = getattr(snapshot, "states", ())
    arrays = [array for pair in layers if pair is not None for array in pair]
    arrays += [value for state in states for _, value in state if isinstance(value, mx.array)]
    return [array.flatten().tolist() for array in arrays]


@pytest.mark.parametrize("kind", KINDS)
def test_choices_of_one_request_share_a_warm_prompt(kind: str) -> None:
    """n answers, whether the cache leaves one token of the prompt to evaluate or many."""
    model = model_of_kind(kind)
    cold, warm = tiny_batch(model, memory_bytes=0), tiny_batch(model)
    expected = answer(cold, asking(1, PROMPT, n=3, temperature=1.0, seed=3))
    assert answer(warm, asking(1, PROMPT, n=3, temperature=1.0, seed=3))[0] == expected[0]
    assert answer(warm, asking(2, PROMPT, n=3, temperature=1.0, seed=3))[0] == expected[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restart_finds_it_on_disk(kind: str, tmp_path: Path) -> None:
    """Written by one batch, read by the next one, and the answer is the same."""
    model = model_of_kind(kind)
    before = tiny_batch(model, disk=tiny_disk(tmp_path))
    first, _, _ = answer(before, asking(1, PROMPT))
    before.prefixes.flush()
    second = [*PROMPT, *first, 9, 8, 7]
    after = tiny_batch(model, disk=tiny_disk(tmp_path))
    told, reused, use = answer(after, asking(2, second))
    assert told == answer(tiny_batch(model, memory_bytes=0), asking(2, second))[0]
    assert (reused, use.source) == (len(PROMPT) + len(first), "disk")
    assert answer(after, asking(3, second))[2].source == "memory"


@pytest.mark.parametrize("kind", KINDS)
def test_what_parted_in_memory_is_whole_on_disk(kind: str, tmp_path: Path) -> None:
    """Pieces that were split after they were written are found in their files, by conversations old and new."""
    model = model_of_kind(kind)
    before, cold = tiny_batch(model, disk=tiny_disk(tmp_path)), tiny_batch(model, memory_bytes=0)
    prompts = {number: [*PROMPT[:30], *[number] * 10] for number in (1, 2, 3, 4)}
    for number in (1, 2, 3):
        answer(before, asking(number, prompts[number]))
    before.prefixes.flush()
    after = tiny_batch(model, disk=tiny_disk(tmp_path))
    told = answers(after, *[asking(number, [*prompts[number], 9, 9]) for number in (1, 4)])
    for number, reused in ((1, 40), (4, 30)):
        assert told[number][0] == answer(cold, asking(number, [*prompts[number], 9, 9]))[0]
        assert (told[number][1], told[number][2].source) == (reused if kind in CUT_BACK else told[number][1], "disk")
    assert after.prefixes.stats().failures == 0


def test_a_damaged_file_costs_its_content_and_nothing_else(tmp_path: Path) -> None:
    """The answer is right, the file is gone, and the next one is written in its place."""
    model = model_of_kind("llama")
    before = tiny_batch(model, disk=tiny_disk(tmp_path))
    first, _, _ = answer(before, asking(1, PROMPT))
    before.prefixes.flush()
    for path in tmp_path.glob("*/*/*"):
        path.write_bytes(path.read_bytes()[:-1] + b"\x99")
    after = tiny_batch(model, disk=tiny_disk(tmp_path))
    told, reused, use = answer(after, asking(2, PROMPT))
    assert (told, reused, use.source, use.miss) == (first, 0, None, CacheMiss.EVICTED)
    after.prefixes.flush()
    assert after.prefixes.stats().files_damaged > 0
    later = tiny_batch(model, disk=tiny_disk(tmp_path))
    assert answer(later, asking(3, PROMPT))[1:] == (
        len(PROMPT) - 1,
        CacheUse(source="disk", miss=None, known_tokens=50),
    )


def test_a_disk_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The prompt is evaluated instead; and others are served meanwhile."""
    model = model_of_kind("llama")
    before = tiny_batch(model, disk=tiny_disk(tmp_path))
    first, _, _ = answer(before, asking(1, PROMPT))
    before.prefixes.flush()
    disk = tiny_disk(tmp_path)
    monkeypatch.setattr(disk, "read", lambda *_: Future())
    monkeypatch.setattr("manent.adapters.inference.prefix_reuse._READ_TIMEOUT_S", 0.2)
    told = answers(tiny_batch(model, disk=disk), asking(2, PROMPT), asking(3, PROMPT, scope=BOB))
    assert [tokens for tokens, _, _ in told.values()] == [first, first]
    assert list(told) == [3, 2]


def test_a_request_that_is_cancelled_while_the_disk_is_read_is_gone(tmp_path: Path) -> None:
    """What is read for it is kept for others."""
    model = model_of_kind("llama")
    before = tiny_batch(model, disk=tiny_disk(tmp_path))
    answer(before, asking(1, PROMPT))
    before.prefixes.flush()
    after = tiny_batch(model, disk=tiny_disk(tmp_path))
    assert after.add(asking(2, PROMPT), received_s=0.0) == []
    assert after.prefixes.reading == 1
    after.cancel(2)
    assert after.active == 0
    assert answer(after, asking(3, PROMPT))[1] == len(PROMPT) - 1


def test_tenants_share_nothing_not_even_the_reason() -> None:
    """The same prompt of another tenant is as cold as if nobody had ever asked; so is one without a scope."""
    batch = tiny_batch(model_of_kind("llama"))
    first = answer(batch, asking(1, PROMPT, scope=ANN))[0]
    told, reused, use = answer(batch, asking(2, PROMPT, scope=BOB))
    assert (told, reused, use.miss, use.known_tokens) == (first, 0, CacheMiss.COLD, 0)
    assert answer(batch, asking(3, PROMPT, scope=None))[1:] == (0, CacheUse(miss=CacheMiss.DISABLED))
    assert answer(batch, asking(4, PROMPT, scope=BOB))[1] == len(PROMPT) - 1


def test_a_prompt_that_was_given_up_half_way_goes_on_where_it_was() -> None:
    """A client that loses patience and comes again does not start from nothing."""
    batch = tiny_batch(model_of_kind("gemma3_text"))
    batch.add(asking(1, PROMPT), received_s=0.0)
    for _ in range(2):
        batch.step()
    batch.cancel(1)
    told, reused, _ = answer(batch, asking(2, PROMPT))
    assert told == answer(tiny_batch(model_of_kind("gemma3_text"), memory_bytes=0), asking(2, PROMPT))[0]
    assert reused == 32


def test_memory_stays_under_its_bound() -> None:
    """Whatever is asked, in any order, what is kept is measured and bounded."""
    batch = tiny_batch(model_of_kind("qwen3_next"), memory_bytes=60_000)
    noise = random.Random(3)
    for number in range(40):
        cut = noise.randrange(50)
        answer(batch, asking(number, [*PROMPT[:cut], *[number] * 6]))
        assert batch.prefixes.stats().memory_bytes <= 60_000
    stats = batch.prefixes.stats()
    assert stats.evictions > 0
    assert stats.reused_tokens > 0
    assert stats.hits + sum(stats.misses.values()) >= 40
    assert stats.failures == 0


def test_a_forgotten_conversation_leaves_nothing(tmp_path: Path) -> None:
    """Neither in memory nor on disk; and what another conversation said as well stays."""
    disk = tiny_disk(tmp_path)
    batch = tiny_batch(model_of_kind("llama"), disk=disk)
    answer(batch, asking(1, PROMPT, scope=ANN))
    answer(batch, asking(2, PROMPT, scope=BOB))
    batch.prefixes.forget("aa", "c1")
    batch.prefixes.flush()
    assert answer(batch, asking(3, PROMPT, scope=ANN))[2].miss is CacheMiss.COLD
    assert answer(batch, asking(4, PROMPT, scope=BOB))[1] == len(PROMPT) - 1
    batch.prefixes.flush()
    assert [path.parent.name for path in tmp_path.glob("*/*/*")].count("aa") == 0


def test_what_is_not_recorded_is_not_written(tmp_path: Path) -> None:
    """A request whose content leaves no trace in the log leaves none on disk either."""
    batch = tiny_batch(model_of_kind("llama"), disk=tiny_disk(tmp_path))
    answer(batch, asking(1, PROMPT, scope=PrefixScope(tenant="aa")))
    batch.prefixes.flush()
    assert list(tmp_path.glob("*/*/*")) == []
    assert answer(batch, asking(2, PROMPT))[1] == len(PROMPT) - 1
    batch.prefixes.flush()
    assert len(list(tmp_path.glob("*/aa/*"))) > 0


def test_a_model_whose_state_cannot_be_taken_out_is_served_all_the_same() -> None:
    """It has no prefix cache, and the reason is told."""
    layers = PrefixLayers(lambda: [object()])
    assert not layers.supported
