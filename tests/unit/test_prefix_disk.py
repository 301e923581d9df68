"""Files of a prefix cache: whole or not there, checked to the last byte, bounded, private, and named without a hint."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from manent.adapters.inference.prefix_disk import FREE_KEPT_BYTES, PrefixDisk, forget_files
from manent.adapters.inference.prefix_files import (
    UNFINISHED_SUFFIX,
    DamagedFile,
    Header,
    Tensor,
    read_file,
    read_header,
    write_file,
)
from manent.adapters.inference.prefix_settings import PrefixTags
from manent.adapters.inference.prefix_tree import StoredPiece, packed
from manent.domain.caching import CacheScope

SIZE = 1000


def disk(folder: Path, *, identity: str = "i", bytes_max: int = 10**6, free_bytes: int = 10**12) -> PrefixDisk:
    """A disk tier that believes so much to be free."""
    return PrefixDisk(folder, model="m", identity=identity, bytes_max=bytes_max, free_bytes=lambda _: free_bytes)


def write(on: PrefixDisk, tokens: list[int], *, scope: str = "aa", conversation: str = "c1") -> StoredPiece:
    """Write a piece of a thousand bytes, and wait for it."""
    tensor = Tensor("keys.0", "U8", (SIZE,), memoryview(bytes(SIZE)))
    piece = on.write(
        scope, packed(tokens), [tensor], start=0, conversation=conversation, has_snapshot=False, state="{}"
    )
    assert piece is not None
    on.flush()
    return piece


def read(on: PrefixDisk, piece: StoredPiece) -> bytes | None:
    """The bytes of a piece, None if it cannot be used."""

    def build(_header: Header, tensors: dict[str, Tensor]) -> object:
        return bytes(tensors["keys.0"].data)

    content = on.read([piece], build).result().get(piece.name)
    assert content is None or isinstance(content, bytes)
    return content


def test_what_is_written_is_found_again_by_its_tokens(tmp_path: Path) -> None:
    """By another process, from nothing but the files; and any reader of safetensors can read them."""
    piece = write(disk(tmp_path), [1, 2, 3])
    (known,) = disk(tmp_path).scan()
    assert (known.scope, known.tokens, known.piece.name) == ("aa", packed([1, 2, 3]), piece.name)
    assert (known.piece.start, known.piece.stop, known.piece.conversation) == (0, 3, "c1")
    assert read(disk(tmp_path), known.piece) == bytes(SIZE)
    from mlx.core import load  # noqa: PLC0415 (only here)

    arrays = load(str(tmp_path / "m" / piece.name))
    assert arrays["tokens"].tolist() == [1, 2, 3]  # type: ignore[union-attr, call-overload]  # a dictionary of arrays


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_file_with_a_changed_or_missing_byte_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    """Whatever byte it is, in the header or behind it; and so is one that is cut off or longer than it was."""
    path = tmp_path / "file.safetensors"
    tensors = [Tensor("tokens", "U32", (2,), memoryview(packed([1, 2]))), Tensor("k", "U8", (9,), memoryview(bytes(9)))]
    write_file(path, tensors, {"identity": "i"})
    read_file(path)
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    change = data.draw(st.sampled_from(["flip", "cut", "more"]))
    if change == "flip":
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :])
    else:
        path.write_bytes(whole[:place] if change == "cut" else whole + b"x")
    with pytest.raises(DamagedFile):
        read_file(path)


def test_a_header_tells_of_a_file_that_is_cut_off(tmp_path: Path) -> None:
    """Without reading the rest, so that looking through many is quick."""
    path = tmp_path / "file.safetensors"
    write_file(path, [Tensor("tokens", "U32", (2,), memoryview(packed([1, 2])))], {"identity": "i"})
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DamagedFile):
        read_header(path)


@pytest.mark.parametrize("damage", ["cut", "garbage", "other", "flipped", "half-written"])
def test_what_cannot_be_used_is_removed(tmp_path: Path, damage: str) -> None:
    """Cut off, foreign, of another model's weights or another release, changed, left over from a crash."""
    piece = write(disk(tmp_path), [1, 2, 3])
    path = tmp_path / "m" / piece.name
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-10])
    elif damage == "garbage":
        path.write_bytes(b"\x00" * 50)
    elif damage == "flipped":
        path.write_bytes(path.read_bytes()[:-1] + b"\x01")
    elif damage == "half-written":
        path.rename(path.with_suffix(UNFINISHED_SUFFIX))
    later = disk(tmp_path, identity="another" if damage == "other" else "i")
    known = later.scan()
    assert [read(later, found.piece) for found in known] == ([None] if damage == "flipped" else [])
    assert list(tmp_path.glob("*/*/*")) == []
    assert later.counts.damaged == 1
    assert len(later.take_gone()) == 1


def test_the_bound_holds_for_all_models_together(tmp_path: Path) -> None:
    """What was used longest ago goes first, whoever wrote it; what cannot fit at all is not written."""
    bound = disk(tmp_path, bytes_max=4500)
    other = PrefixDisk(tmp_path, model="n", identity="i", bytes_max=4500)
    pieces = []
    for number in range(6):
        pieces.append(write(other if number % 2 else bound, [number, 1, 2]))
        path = tmp_path / ("n" if number % 2 else "m") / pieces[-1].name
        if path.exists():
            os.utime(path, (number, number))
        assert sum(file.stat().st_size for file in tmp_path.glob("*/*/*")) <= 4500
    assert read(bound, pieces[0]) is None
    assert read(other, pieces[5]) == bytes(SIZE)
    assert pieces[0].name in bound.take_gone()
    small = disk(tmp_path / "small", bytes_max=500)
    gone = write(small, [1, 2, 3])
    assert small.take_gone() == {gone.name}
    assert small.counts.skipped == 1


def test_a_full_disk_is_left_alone(tmp_path: Path) -> None:
    """Where little is free nothing is written, and older pieces make room for what is needed elsewhere."""
    piece = write(disk(tmp_path), [1, 2, 3])
    tight = disk(tmp_path, free_bytes=FREE_KEPT_BYTES - 500)
    assert write(tight, [4, 5, 6]).name in tight.take_gone()
    assert read(tight, piece) == bytes(SIZE)


def test_files_are_private_and_their_names_tell_nothing(tmp_path: Path) -> None:
    """Nobody else can read them; whose they are shows to nobody without the secret, and the secret is kept."""
    tags = PrefixTags.of_file(tmp_path / "keys" / "secret")
    scope = tags.scope(CacheScope(tenant="acme", conversation="plans", durable=True))
    piece = write(disk(tmp_path), [1, 2, 3], scope=scope.tenant, conversation=scope.conversation or "")
    path = tmp_path / "m" / piece.name
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "secret").stat().st_mode) == 0o600
    assert "acme" not in str(path.relative_to(tmp_path))
    assert b"plans" not in path.read_bytes()
    assert PrefixTags.of_file(tmp_path / "keys" / "secret").tenant("acme") == scope.tenant
    assert PrefixTags(b"another").tenant("acme") != scope.tenant
    assert len({tags.tenant("ab"), tags.conversation("a", "b"), tags.conversation("ab", ""), tags.model("ab")}) == 4


def test_forgetting_needs_no_runner(tmp_path: Path) -> None:
    """A conversation's files go, of every model; those of others stay; without a conversation the whole tenant's go."""
    kept = write(disk(tmp_path), [1, 2, 3], conversation="c2")
    write(disk(tmp_path), [1, 2, 4], conversation="c1")
    write(PrefixDisk(tmp_path, model="n", identity="i", bytes_max=10**6), [1, 2, 4], conversation="c1")
    theirs = write(disk(tmp_path), [1, 2, 3], scope="bb", conversation="c1")
    assert forget_files(tmp_path, "aa", "c1") == 2
    assert read(disk(tmp_path), kept) == bytes(SIZE)
    assert forget_files(tmp_path, "aa", None) == 1
    assert read(disk(tmp_path), theirs) == bytes(SIZE)
