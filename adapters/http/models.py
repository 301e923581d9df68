"""GET /v1/models and /v1/models/{id}: the registry, as OpenAI lists models."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.wire_responses import Model, ModelList
from manent.domain.generation import ModelCard


async def list_models(exchange: Exchange) -> HTTPResponse:
    """All models of the registry, in its order."""
    return json_answer(ModelList(data=[_model(card) for card in exchange.services.engine.models()]))


async def retrieve_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """One model, by its id or an alias; ids of the hub have a slash in them."""
    return json_answer(_model(exchange.services.engine.resolve(model_id)))


def _model(card: ModelCard) -> Model:
    return Model(id=card.model_id, created=card.created_at_s, owned_by=card.owned_by)
