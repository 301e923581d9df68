"""What happens to models, as events of the log: see ``manent.domain.events``, which has those of conversations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoaded:
    """A runner is ready to generate with the model."""

    model_id: str
    weights_digest: str
    memory_bytes: int
    load_s: float
    pid: int
    loaded_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelUnloaded:
    """A runner was stopped on purpose, and its memory given back.

    ``reason`` is one of ``UnloadReason``; ``evicted_for`` names the model that needed the room, and ``unloaded_by``
    the operator who asked for it.
    """

    model_id: str
    reason: str
    memory_bytes: int | None = None
    evicted_for: str | None = None
    unloaded_by: str | None = None
    unloaded_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelLoadFailed:
    """A model could not be loaded; ``reason`` says what was wrong with it."""

    model_id: str
    reason: str
    failed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerCrashed:
    """A runner ended without being asked to; ``requests`` were failed with it."""

    model_id: str
    reason: str
    requests: int
    crashed_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSuspended:
    """After repeated failures the model is not tried for ``suspended_s``."""

    model_id: str
    reason: str
    failures: int
    suspended_s: float
    suspended_at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPinChanged:
    """An operator said whether the model may be unloaded to make room or for being idle; it holds until a restart."""

    model_id: str
    pinned: bool
    changed_by: str
    changed_at_us: int


ModelEvent = ModelLoaded | ModelUnloaded | ModelLoadFailed | RunnerCrashed | ModelSuspended | ModelPinChanged


def model_stream(model_id: str) -> str:
    """The stream of a model's loads, unloads and crashes."""
    return f"model-{model_id}"
