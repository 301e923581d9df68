"""The routes of models, a part of the one table."""

from __future__ import annotations

from collections.abc import Sequence

from manent.adapters.http import models
from manent.adapters.http import wire_responses as answers
from manent.adapters.http.anthropic_models import BETA_QUERY, PAGE_QUERY
from manent.adapters.http.route import STORE_ERRORS, Route
from manent.domain.access import Scope

MANAGE_ERRORS = ("unknown_parameter", "permission_denied", "model_not_found", *STORE_ERRORS)
LOAD_ERRORS = ("model_load_failed", "insufficient_memory", "model_unavailable", "runner_crashed", "shutting_down")

# Ids of the hub have a slash in them, and the router takes the first path that fits: the fixed ends come first.
MODEL_ROUTES: Sequence[Route] = (
    Route(
        name="listModels",
        method="GET",
        path="/models",
        handler=models.list_models,
        opened_by="models",
        scope=Scope.MODELS_READ,
        summary="List the models of the registry (as Anthropic's API does, where anthropic-version is sent)",
        tag="Models",
        answer=answers.ModelList,
        query=(*PAGE_QUERY, BETA_QUERY),
        errors=("invalid_type", "invalid_value", "unknown_parameter", "internal_error"),
    ),
    Route(
        name="modelMemory",
        method="GET",
        path="/models/memory",
        handler=models.show_memory,
        scope=Scope.MODELS_READ,
        summary="The memory of models: the budget, and what each model holds",
        tag="Models",
        answer=answers.ModelMemory,
        errors=("unknown_parameter", "internal_error"),
    ),
    Route(
        name="loadModel",
        method="POST",
        path="/models/<model_id:path>/load",
        handler=models.load_model,
        scope=Scope.MODELS_MANAGE,
        summary="Load a model, and answer once it is loaded",
        tag="Models",
        answer=answers.Model,
        errors=(*MANAGE_ERRORS, *LOAD_ERRORS),
    ),
    Route(
        name="unloadModel",
        method="POST",
        path="/models/<model_id:path>/unload",
        handler=models.unload_model,
        scope=Scope.MODELS_MANAGE,
        summary="Unload a model that no request uses",
        tag="Models",
        answer=answers.ModelUnloaded,
        errors=(*MANAGE_ERRORS, "model_in_use"),
    ),
    Route(
        name="pinModel",
        method="POST",
        path="/models/<model_id:path>/pin",
        handler=models.pin_model,
        scope=Scope.MODELS_MANAGE,
        summary="Keep a model in memory until the next start",
        tag="Models",
        answer=answers.Model,
        errors=MANAGE_ERRORS,
    ),
    Route(
        name="unpinModel",
        method="POST",
        path="/models/<model_id:path>/unpin",
        handler=models.unpin_model,
        scope=Scope.MODELS_MANAGE,
        summary="Let a model be unloaded again for others or for being idle",
        tag="Models",
        answer=answers.Model,
        errors=MANAGE_ERRORS,
    ),
    Route(
        name="retrieveModel",
        method="GET",
        path="/models/<model_id:path>",
        handler=models.retrieve_model,
        opened_by="models",
        scope=Scope.MODELS_READ,
        summary="Retrieve a model by its id or an alias",
        tag="Models",
        answer=answers.Model,
        query=(BETA_QUERY,),
        errors=("invalid_type", "invalid_value", "unknown_parameter", "model_not_found", "internal_error"),
    ),
)
