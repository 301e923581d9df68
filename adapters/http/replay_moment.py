"""``?as_of_version=``, ``?as_of_position=`` and ``?as_of=``: a session as it stood."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manent.adapters.http.query import IntQuery, QueryParameter, TimeQuery
from manent.adapters.http.wire_replay import VERSION_MAX
from manent.domain.usecases.replay import AsOf

POSITION_MAX = 2**63 - 1

AS_OF_QUERY: Sequence[QueryParameter] = (
    IntQuery(name="as_of_version", says="as it stood at this version of its stream", minimum=1, maximum=VERSION_MAX),
    IntQuery(name="as_of_position", says="as it stood at this position of the log", minimum=1, maximum=POSITION_MAX),
    TimeQuery(name="as_of", says="as it stood at this time"),
)


def asked_moment(query: Mapping[str, Any]) -> AsOf | None:
    """The moment that the parameters of ``AS_OF_QUERY`` name; None where they name none."""
    moment = AsOf(version=query["as_of_version"], position=query["as_of_position"], time_us=query["as_of"])
    return None if moment == AsOf() else moment
