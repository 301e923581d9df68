"""What is given up first when memory runs short: GreedyDual-Size-Frequency over the pieces of the prefix tree.

The worth of a piece is ``base + uses * tokens it saves / bytes it holds`` (Cherkasova, "Improving WWW proxies
performance with GreedyDual-Size-Frequency caching policy", HP Labs 1998). Tokens stand for the time of evaluating them
again. ``base`` is the worth of the last piece that was given up when this one was last used: so whatever is not used
any more is overtaken, the later the more often it was used. A system prompt that ten conversations began with outlives
ten turnovers of the cache. A piece that another one goes on from is never given up before it, which would be
useless alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from manent.adapters.inference.prefix_tree import PrefixNode

USES_MAX = 16
"""Uses beyond these count no more, so that nothing is kept for ever for what it was once."""


@dataclass(frozen=True, slots=True)
class Victim:
    """Something that can be given up now: all that a node keeps in memory, or its snapshot alone."""

    node: PrefixNode
    snapshot_only: bool
    worth: float


def victims(nodes: Iterable[PrefixNode], *, needs_snapshots: bool) -> list[Victim]:
    """All that can be given up, the least worthy first; what was used longest ago among equals."""
    found = [victim for node in nodes for victim in _of_node(node, needs_snapshots=needs_snapshots)]
    return sorted(found, key=lambda victim: (victim.worth, victim.node.touched))


def _of_node(node: PrefixNode, *, needs_snapshots: bool) -> Iterator[Victim]:
    if not node.in_memory:
        return
    leaf = not any(child.in_memory for child in node.children.values())
    saves_tokens = node.length
    if needs_snapshots:
        saves_tokens = node.stop - _last_snapshot(node) if node.snapshot is not None else 0
    if leaf:
        yield Victim(node, snapshot_only=False, worth=_worth(node, saves_tokens, node.nbytes))
    elif node.snapshot is not None:
        yield Victim(node, snapshot_only=True, worth=_worth(node, saves_tokens, node.snapshot.nbytes))


def _worth(node: PrefixNode, saves_tokens: int, nbytes: int) -> float:
    return node.base + min(node.uses, USES_MAX) * saves_tokens / max(nbytes, 1)


def _last_snapshot(node: PrefixNode) -> int:
    """Where evaluation would have to begin without this node's snapshot."""
    return next((before.stop for before in node.ancestors() if before.snapshot is not None), 0)
