"""The tree of RFC 6962: known answers, and properties over trees of any size."""

from __future__ import annotations

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from manent.domain.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    inclusion_proof,
    leaf_hash,
    node_hash,
    perfect_ranges,
    verify_consistency,
    verify_inclusion,
)

# The test vectors of the Certificate Transparency project: these eight entries, and the roots of their prefixes.
ENTRIES = [
    bytes.fromhex(entry)
    for entry in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


class Tree:
    """Leaves with every perfect node above them."""

    def __init__(self, size: int) -> None:
        self.leaves = [leaf_hash(i.to_bytes(4, "big")) for i in range(size)]
        self.nodes = {(0, i): leaf for i, leaf in enumerate(self.leaves)}
        self.frontier = Frontier().extended(self.leaves, self._keep)

    def _keep(self, level: int, index: int, node: bytes) -> None:
        self.nodes[level, index] = node

    def read(self, level: int, index: int) -> bytes:
        """A perfect node."""
        return self.nodes[level, index]


def plain_root(leaves: list[bytes]) -> bytes:
    """MTH, word for word as RFC 6962 defines it."""
    if not leaves:
        return EMPTY_ROOT
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(plain_root(leaves[:k]), plain_root(leaves[k:]))


@pytest.mark.parametrize("size", range(1, 9))
def test_the_known_answers(size: int) -> None:
    """The roots that every implementation of RFC 6962 agrees on."""
    frontier = Frontier().extended([leaf_hash(entry) for entry in ENTRIES[:size]])
    assert frontier.root.hex() == ROOTS[size - 1]


SIZES = st.integers(1, 300)


@for_all(SIZES, st.integers(0, 300))
def test_growing_in_any_steps_gives_the_defined_root(size: int, cut: int) -> None:
    """The frontier forgets nothing that the root needs."""
    tree = Tree(size)
    grown = Frontier().extended(tree.leaves[:cut]).extended(tree.leaves[cut:])
    assert grown == tree.frontier
    assert grown.root == plain_root(tree.leaves)


@for_all(SIZES, st.integers(0, 300))
def test_every_node_is_told_of_once_however_the_tree_grows(size: int, cut: int) -> None:
    """A node is the same whether its leaves come one by one, all at once, or in two parts."""
    leaves, told = Tree(size).leaves, list[tuple[int, int, bytes]]()
    grown, singly = Frontier(), Tree(0)
    for part in (leaves[:cut], leaves[cut:]):
        grown = grown.extended(part, lambda level, index, node: told.append((level, index, node)))
    for leaf in leaves:
        singly.frontier = singly.frontier.extended([leaf], singly._keep)
    assert grown == singly.frontier
    assert len(told) == len(singly.nodes)
    assert {(level, index): node for level, index, node in told} == singly.nodes


@for_all(SIZES, st.data())
def test_every_leaf_is_proved_and_nothing_else(size: int, data: st.DataObject) -> None:
    """A proof holds for its leaf at its place in its tree; any change breaks it."""
    tree = Tree(size)
    index = data.draw(st.integers(0, size - 1))
    proof = inclusion_proof(index, size, tree.read)
    root = tree.frontier.root
    assert verify_inclusion(tree.leaves[index], index, size, proof, root)
    assert not verify_inclusion(leaf_hash(b"else"), index, size, proof, root)
    assert not verify_inclusion(tree.leaves[index], index, size, proof, leaf_hash(b"else"))
    assert not verify_inclusion(tree.leaves[index], index, size, [*proof, root], root)
    other = data.draw(st.integers(-2, size + 2).filter(lambda place: place != index))
    assert not verify_inclusion(tree.leaves[index], other, size, proof, root)
    if proof:
        broken = [*proof]
        broken[data.draw(st.integers(0, len(proof) - 1))] = leaf_hash(b"else")
        assert not verify_inclusion(tree.leaves[index], index, size, broken, root)
        assert not verify_inclusion(tree.leaves[index], index, size, proof[:-1], root)


@for_all(SIZES, st.data())
def test_every_earlier_tree_is_proved_and_nothing_else(size: int, data: st.DataObject) -> None:
    """A log that was only appended to is consistent with each of its pasts, and with no other."""
    tree = Tree(size)
    old = data.draw(st.integers(0, size))
    proof = consistency_proof(old, size, tree.read)
    old_root, new_root = Tree(old).frontier.root, tree.frontier.root
    assert verify_consistency(old, size, proof, old_root, new_root)
    assert not verify_consistency(old, size, [*proof, new_root], old_root, new_root)
    if 0 < old < size:
        assert not verify_consistency(old, size, proof, leaf_hash(b"else"), new_root)
        assert not verify_consistency(old, size, proof, old_root, leaf_hash(b"else"))
        assert not verify_consistency(old, size, proof[:-1], old_root, new_root)
        broken = [*proof]
        broken[data.draw(st.integers(0, len(proof) - 1))] = leaf_hash(b"else")
        assert not verify_consistency(old, size, broken, old_root, new_root)


@for_all(st.integers(0, 3000), st.integers(0, 3000))
def test_a_range_is_covered_once_by_few_nodes(start: int, length: int) -> None:
    """Perfect nodes lie side by side, and there are at most two for each level."""
    covered = start
    nodes = list(perfect_ranges(start, start + length))
    for level, index in nodes:
        assert index << level == covered
        covered += 1 << level
    assert covered == start + length
    assert len(nodes) <= 2 * max(1, length.bit_length())


def test_a_frontier_that_cannot_be_is_refused() -> None:
    """A size and hashes that do not fit each other are damage, not a tree."""
    with pytest.raises(ValueError, match="perfect subtrees"):
        Frontier(3, (EMPTY_ROOT,))
