"""Whether a server can work: what keeps it from answering, and what does not work as it should meanwhile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """A look at a server, by the names of its parts, with a sentence each.

    With ``problems`` it cannot serve requests now. What is ``degraded`` costs speed or comfort, and requests are
    served. ``started`` tells that it could serve requests once since its start.
    """

    problems: Mapping[str, str] = field(default_factory=dict)
    degraded: Mapping[str, str] = field(default_factory=dict)
    started: bool = True
