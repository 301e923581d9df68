"""The log as DuckDB's table: scans read what they are asked for, when they are asked, in the thread that asks."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pyarrow.dataset as ds
import pytest

from manent.adapters.analysis.dataset import LogDataset
from manent.domain.errors import LogCorrupt
from manent.domain.records import EventFilter
from manent.domain.usecases.export_events import Row

TYPES = ("a", "b", "a", "b", "a", "b")


class Pages:
    """A log of six events, two a page, that notes how it was read."""

    def __init__(self) -> None:
        self.wanted = EventFilter()
        self.columns: Sequence[str] = ()
        self.threads: list[int] = []

    def __call__(self, wanted: EventFilter, columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        """See ``dataset.Pages``."""
        self.wanted, self.columns = wanted, columns
        for first in (1, 3, 5):
            self.threads.append(threading.get_ident())
            values = {"position": (first, first + 1), "type": TYPES[first - 1 : first + 1], "tenant": ("t", "t")}
            yield list(zip(*(values[name] for name in columns), strict=True))


def test_nothing_is_read_ahead() -> None:
    """A page is read when it is asked for, by whoever asks: a thread that is left over would keep the process alive."""
    pages = Pages()
    reader = LogDataset(pages, EventFilter()).scanner(columns=["type"]).to_reader()
    assert pages.threads == []
    assert reader.read_next_batch().to_pydict() == {"type": ["a", "b"]}
    assert pages.threads == [threading.get_ident()]
    reader.close()
    assert len(pages.threads) == 1


def test_only_what_is_needed_is_read_and_the_filter_is_applied() -> None:
    """The filter's columns are read beside those that are asked for, and are not part of the answer."""
    pages = Pages()
    condition = (ds.field("type") == "a") & (ds.field("position") > 1)
    scanner = LogDataset(pages, EventFilter(max_position=6)).scanner(columns=["tenant"], filter=condition)
    assert scanner.to_reader().read_all().to_pydict() == {"tenant": ["t", "t"]}
    assert pages.columns == ["position", "type", "tenant"]
    assert pages.wanted == EventFilter(type="a", min_position=2, max_position=6)


def test_damage_ends_a_scan() -> None:
    """A value of the wrong kind is named by the positions around it."""

    def damaged(_wanted: EventFilter, _columns: Sequence[str]) -> Iterator[Sequence[Row]]:
        yield [(1, "noon"), (2, 5)]

    reader = LogDataset(damaged, EventFilter()).scanner(columns=["position", "stream_version"]).to_reader()
    with pytest.raises((LogCorrupt, OSError), match="between positions 1 and 2"):
        reader.read_all()
