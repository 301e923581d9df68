"""The prefix cache without a model: what is found, given up and forgotten, and how its bytes are bounded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from manent.adapters.inference.prefix_cache import PrefixCache, PrefixLimits
from manent.adapters.inference.prefix_tree import PrefixTree, StoredPiece, common_tokens, packed
from manent.adapters.inference.prefix_value import victims
from manent.domain.caching import CacheMiss

LEAST = 2


@dataclass(frozen=True)
class Letters:
    """A segment that remembers which tokens it is of; ten bytes each."""

    tokens: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Ten bytes for a token."""
        return 10 * len(self.tokens)

    def part(self, start: int, stop: int) -> Self:
        """Some of the tokens."""
        return type(self)(self.tokens[start:stop])


@dataclass(frozen=True)
class State:
    """A snapshot that remembers what was in front of it."""

    tokens: tuple[int, ...]
    nbytes: int = 15


def cache(*, memory_bytes: int = 10_000, needs_snapshots: bool = False) -> PrefixCache:
    """An empty cache."""
    return PrefixCache(PrefixLimits(memory_bytes=memory_bytes, keep_min_tokens=LEAST), needs_snapshots=needs_snapshots)


def keep(
    kept: PrefixCache, tokens: list[int], *, scope: str = "a", conversation: str | None = None, state: bool = False
) -> None:
    """Keep a sequence as the runner does: what is missing of it, if that is worth it."""
    start = kept.missing_from(scope, packed(tokens), snapshot=state)
    if start is not None:
        kept.keep(
            scope,
            packed(tokens),
            start=start,
            segment=Letters(tuple(tokens[start:])),
            snapshot=State(tuple(tokens)) if state else None,
            conversation=conversation,
        )


def reuse(kept: PrefixCache, prompt: list[int], *, scope: str = "a") -> int:
    """How much of a prompt is found; what is found is put together, checked, and counted as used."""
    found = kept.find(scope, packed(prompt), memory_only=True)
    tokens = [token for node in found.nodes for token in node.segment.tokens]  # type: ignore[union-attr]  # Letters here
    assert tokens[: found.tokens] == prompt[: found.tokens]
    if found.nodes and found.nodes[-1].snapshot is not None and found.nodes[-1].stop == found.tokens:
        assert list(found.nodes[-1].snapshot.tokens) == prompt[: found.tokens]  # type: ignore[attr-defined]  # State here
    kept.use(found.nodes, None)
    return found.tokens


def common(one: list[int], other: list[int]) -> int:
    """The length of the common prefix, counted one by one."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


sequences = st.lists(st.integers(0, 2), max_size=12)


@given(sequences, sequences)
def test_common_prefixes_are_counted_as_by_hand(one: list[int], other: list[int]) -> None:
    """By halving and by counting: the same number."""
    assert common_tokens(packed(one), packed(other)) == common(one, other)


@given(st.lists(sequences.filter(bool), max_size=12), sequences)
def test_the_tree_knows_the_longest_prefix(known: list[list[int]], asked: list[int]) -> None:
    """Whatever was put in, in any order, the walk is as long as brute force says, and the nodes spell the tokens."""
    tree = PrefixTree()
    for tokens in known:
        assert tree.reach(packed(tokens))[-1].stop == len(tokens)
    path, length = tree.walk(packed(asked))
    assert length == max((common(tokens, asked) for tokens in known), default=0)
    assert b"".join(node.edge for node in path)[: 4 * length] == packed(asked[:length])


@given(st.lists(st.tuples(st.sampled_from("ab"), sequences), max_size=10), st.sampled_from("ab"), sequences)
def test_what_is_found_equals_brute_force(kept: list[tuple[str, list[int]]], scope: str, prompt: list[int]) -> None:
    """Without a bound that matters: the longest prefix of the own scope, one token less than the prompt, or nothing."""
    whole = cache()
    for owner, tokens in kept:
        keep(whole, tokens, scope=owner)
    # What was too little to be worth keeping is not there, so brute force runs over what the tree took.
    taken: list[list[int]] = []
    for owner, tokens in kept:
        if owner == scope and len(tokens) - max((common(t, tokens) for t in taken), default=0) >= LEAST:
            taken.append(tokens)
    expected = min(max((common(tokens, prompt) for tokens in taken), default=0), len(prompt) - 1)
    assert reuse(whole, prompt, scope=scope) == (expected if expected >= LEAST else 0)


class BoundedCache(RuleBasedStateMachine):
    """Any order of keeping, asking and forgetting, with little memory."""

    def __init__(self) -> None:
        super().__init__()
        self.limit = 200
        self.cache = cache(memory_bytes=self.limit, needs_snapshots=True)
        self.said: dict[str, list[list[int]]] = {"a": [], "b": []}
        self.forgotten: set[tuple[str, str]] = set()

    @rule(scope=st.sampled_from("ab"), tokens=sequences, who=st.sampled_from(["c1", "c2"]), state=st.booleans())
    def keeps(self, scope: str, tokens: list[int], who: str, state: bool) -> None:  # noqa: FBT001 (hypothesis passes it)
        """A sequence is kept."""
        keep(self.cache, tokens, scope=scope, conversation=who, state=state)
        if (scope, who) not in self.forgotten:
            self.said[scope].append(tokens)

    @rule(scope=st.sampled_from("ab"), prompt=sequences)
    def asks(self, scope: str, prompt: list[int]) -> None:
        """What is found was said in this scope."""
        found = reuse(self.cache, prompt, scope=scope)
        assert found <= max((common(tokens, prompt) for tokens in self.said[scope]), default=0)

    @rule(scope=st.sampled_from("ab"), who=st.sampled_from(["c1", "c2"]))
    def forgets(self, scope: str, who: str) -> None:
        """Nothing of a forgotten conversation is left that is not another's too."""
        self.cache.forget(scope, who)
        self.forgotten.add((scope, who))
        if {(scope, "c1"), (scope, "c2")} <= self.forgotten:
            self.said[scope] = []

    @invariant()
    def bounded(self) -> None:
        """The bytes are those of the pieces, and never more than allowed."""
        nodes = list(self.cache._nodes())
        assert self.cache.nbytes == sum(node.nbytes for node in nodes) <= self.limit
        assert all(node.segment is None or len(node.segment.tokens) == node.length for node in nodes)  # type: ignore[attr-defined]  # Letters here


TestBoundedCache = BoundedCache.TestCase


def test_another_scope_misses_as_if_nothing_were_there() -> None:
    """The reason that it is told is the one of an empty cache."""
    kept = cache()
    keep(kept, [1, 2, 3, 4, 5])
    found = kept.find("b", packed([1, 2, 3, 4, 5, 6]))
    assert (found.tokens, found.known_tokens, found.miss) == (0, 0, CacheMiss.COLD)


@pytest.mark.parametrize(
    ("needs_snapshots", "prompt", "tokens", "miss"),
    [
        (False, [1, 2, 3, 4, 5, 6], 4, None),
        (False, [1, 2, 9, 9], 2, CacheMiss.DIVERGED),
        (False, [9, 9, 9, 9], 0, CacheMiss.COLD),
        (False, [1, 2], 0, CacheMiss.TOO_SHORT),
        (True, [1, 2, 3, 4, 5, 6], 4, None),
        (True, [1, 2, 3, 9, 9], 0, CacheMiss.NOT_TRIMMABLE),
    ],
)
def test_a_miss_says_why(needs_snapshots: bool, prompt: list[int], tokens: int, miss: CacheMiss | None) -> None:  # noqa: FBT001 (a parameter of the test)
    """Cold, parted, too short, or a state that cannot be cut back."""
    kept = cache(needs_snapshots=needs_snapshots)
    keep(kept, [1, 2, 3, 4], state=needs_snapshots)
    found = kept.find("a", packed(prompt))
    assert (found.tokens, found.miss) == (tokens, miss)


def test_what_was_given_up_is_a_miss_of_its_own() -> None:
    """For a while it is known that more was there."""
    kept = cache(memory_bytes=60)
    keep(kept, [1, 2, 3, 4])
    keep(kept, [7, 8, 9, 7, 8, 9])
    found = kept.find("a", packed([1, 2, 3, 4, 5]))
    assert (found.tokens, found.known_tokens, found.miss) == (0, 4, CacheMiss.EVICTED)
    assert kept.evictions == 1


def test_a_shared_beginning_outlives_what_was_used_once() -> None:
    """A system prompt that conversations begin with stays, while conversation after conversation passes through."""
    kept = cache(memory_bytes=150)
    system = [1, 2, 3, 4, 5]
    for turn in range(40):
        reuse(kept, [*system, 10 + turn, 11, 12])
        keep(kept, [*system, 10 + turn, 11, 12])
        keep(kept, [100 + turn, 7, 7, 7])
    assert reuse(kept, [*system, 99, 99]) == len(system)


def test_what_was_used_often_outlives_what_was_used_lately_but_not_for_ever() -> None:
    """A beginning of ten conversations stays while a few others pass, and goes when many have passed."""
    kept = cache(memory_bytes=100)
    system = [1, 2, 3, 4]
    keep(kept, system)
    for turn in range(10):
        assert reuse(kept, [*system, 10 + turn]) == len(system)
    for turn in range(5):
        keep(kept, [20 + turn, 5, 5, 5])
    assert kept.find("a", packed([*system, 9])).tokens == len(system)
    for turn in range(60):
        keep(kept, [30 + turn, 5, 5, 5])
    assert kept.find("a", packed([*system, 9])).tokens == 0


def test_a_snapshot_is_worth_what_it_saves() -> None:
    """The end of a conversation goes first; of two snapshots in front of it, the one that saves less."""
    kept = cache(needs_snapshots=True)
    for length in (8, 10, 14):
        keep(kept, [1] * length, state=True)
    order = [(victim.node.stop, victim.snapshot_only) for victim in victims(kept._nodes(), needs_snapshots=True)]
    assert order == [(14, False), (10, True), (8, True)]


def test_files_fill_the_memory_and_are_forgotten_with_their_conversation() -> None:
    """Known from a file, read, used; and named when they have to go."""
    kept = cache()
    tokens = [1, 2, 3, 4, 5, 6]
    first = StoredPiece(name="one", start=0, stop=4, has_snapshot=False, size_bytes=9, conversation="c1")
    second = StoredPiece(name="two", start=4, stop=6, has_snapshot=False, size_bytes=9, conversation="c2")
    kept.attach("a", packed(tokens[:4]), first)
    kept.attach("a", packed(tokens), second)
    found = kept.find("a", packed([*tokens, 7]))
    assert found.files == (first, second)
    assert reuse(kept, [*tokens, 7]) == 0
    for piece in found.files:
        kept.restored(piece, Letters(tuple(tokens[piece.start : piece.stop])), None)
    assert reuse(kept, [*tokens, 7]) == 6
    assert kept.forget("a", "c1") == {"one"}
    assert kept.find("a", packed([*tokens, 7])).tokens == 0
    assert kept.forget("a", None) == {"two"}
    assert kept.nbytes == 0


def test_what_is_still_being_said_in_a_forgotten_conversation_is_not_kept() -> None:
    """A generation that ends after its session was erased leaves nothing behind."""
    kept = cache()
    kept.forget("a", "c1")
    keep(kept, [1, 2, 3, 4], conversation="c1")
    assert kept.nbytes == 0
    keep(kept, [1, 2, 3, 4], conversation="c2")
    assert reuse(kept, [1, 2, 3, 4]) == 3
