"""Values that are made often: the same as dataclasses make them."""

from __future__ import annotations

import copy
import inspect
from dataclasses import FrozenInstanceError, dataclass, field, replace
from typing import Any

import pytest

from manent.domain.made_often import made_often


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain:
    """One as dataclasses make it."""

    name: str
    size: int = 3
    parts: list[str] = field(default_factory=list)


@made_often
@dataclass(frozen=True, slots=True, kw_only=True)
class Often:
    """The same, made often."""

    name: str
    size: int = 3
    parts: list[str] = field(default_factory=list)


@pytest.mark.parametrize("given", [{"name": "a"}, {"name": "a", "size": 4}, {"name": "a", "parts": ["b"], "size": 0}])
def test_it_is_what_dataclasses_make(given: dict[str, Any]) -> None:
    """Members, defaults, equality, hash, repr, copies, and copies with changes."""
    plain, often = Plain(**given), Often(**given)
    assert repr(often) == repr(plain).replace("Plain", "Often")
    assert often == Often(**given) != replace(often, name="other")
    assert replace(often, size=9).size == 9
    assert copy.deepcopy(often) == often
    with pytest.raises(FrozenInstanceError):
        often.name = "b"  # type: ignore[misc]  # it is frozen


def test_defaults_are_made_for_each() -> None:
    """Two of them share no list."""
    assert Often(name="a").parts is not Often(name="a").parts


@pytest.mark.parametrize("wrong", [{}, {"name": "a", "other": 1}])
def test_wrong_members_are_refused(wrong: dict[str, Any]) -> None:
    """One that is missing, and one that there is not."""
    with pytest.raises(TypeError):
        Often(**wrong)
    with pytest.raises(TypeError):
        Often("a")  # type: ignore[call-arg]  # keywords alone


def test_names_and_annotations_stay() -> None:
    """What tools read of the signature is what it was."""
    plain, often = inspect.signature(Plain.__init__), inspect.signature(Often.__init__)
    assert [(one.name, one.kind, one.annotation) for one in plain.parameters.values()] == [
        (one.name, one.kind, one.annotation) for one in often.parameters.values()
    ]


def test_other_classes_are_not_touched() -> None:
    """Without slots, without keywords, or none at all."""
    for wrong in (dataclass(frozen=True)(type("A", (), {"__annotations__": {"a": int}})), int):
        with pytest.raises(TypeError):
            made_often(wrong)
