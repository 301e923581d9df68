"""Which models a principal may use; to it, any other is a model that is not there."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from manent.domain.access import ModelAccess, Principal
from manent.domain.errors import ModelNotFound
from manent.domain.generation import ModelCard

DEFAULT_MODEL = "default"

Resolve = Callable[[str], ModelCard]
"""``InferenceEngine.resolve``."""


def permitted(principal: Principal, model: str, resolve: Resolve) -> ModelCard:
    """The card of ``model``, if ``principal`` may use it.

    Raises:
        ModelNotFound: there is none of this name for ``principal``. What is not for it is not even hinted at.
    """
    if principal.models.allowed is None:
        return resolve(model)
    try:
        card = resolve(model)
    except ModelNotFound:
        raise _not_there(model) from None
    if not is_permitted(principal.models, card.model_id, resolve):
        raise _not_there(model)
    return card


def is_permitted(access: ModelAccess, model_id: str, resolve: Resolve) -> bool:
    """Whether the model with this id is one of those that are allowed."""
    return access.allowed is None or model_id in {_id_of(name, resolve) for name in access.allowed}


def asked_model(access: ModelAccess, model: str) -> str:
    """The model that is meant: ``default`` may mean another for this credential."""
    return access.default if model == DEFAULT_MODEL and access.default is not None else model


def models_to_try(principal: Principal, model: str, resolve: Resolve) -> Sequence[str]:
    """The ids to try, in their order: the model that is asked for, and the credential's fallbacks for it.

    Raises:
        ModelNotFound: the model that is asked for is none for ``principal``.
    """
    access = principal.models
    ids = [permitted(principal, asked_model(access, model), resolve).model_id]
    for name in access.fallbacks:
        found = _id_of(name, resolve)
        if found is not None and found not in ids and is_permitted(access, found, resolve):
            ids.append(found)
    return ids


def _id_of(name: str, resolve: Resolve) -> str | None:
    try:
        return resolve(name).model_id
    except ModelNotFound:
        return None


def _not_there(model: str) -> ModelNotFound:
    return ModelNotFound(f"there is no model {model!r:.200}")
