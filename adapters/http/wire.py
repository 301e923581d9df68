"""What all request models share."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Wire(BaseModel):
    """A request model: a string where a number belongs is refused, and so is a name that it does not know."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)
