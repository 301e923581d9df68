"""/v1/models: the registry as OpenAI lists models, how each stands, and what operators do with them."""

from __future__ import annotations

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.anthropic_errors import speaks_anthropic
from manent.adapters.http.anthropic_models import anthropic_model, anthropic_model_list, refuse_pages
from manent.adapters.http.context import Exchange
from manent.adapters.http.wire_responses import Model, ModelList, ModelMemory, ModelUnloaded
from manent.domain.generation import ModelCard
from manent.domain.model_status import ModelStatus

BYTES_PER_GB = 1_000_000_000
DIGITS = 3


async def list_models(exchange: Exchange) -> HTTPResponse:
    """The models of the registry that are there for whoever asks, in its order."""
    if speaks_anthropic(exchange.request):
        return anthropic_model_list(exchange)
    refuse_pages(exchange)
    models, principal = exchange.services.models, exchange.principal
    statuses = {status.model_id: status for status in models.memory().models}
    return json_answer(ModelList(data=[_model(card, statuses[card.model_id]) for card in models.cards(principal)]))


async def retrieve_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """One model, by its id or an alias; ids of the hub have a slash in them."""
    if speaks_anthropic(exchange.request):
        return anthropic_model(exchange, model_id)
    return _shown(exchange, exchange.services.models.status(exchange.principal, model_id))


async def load_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """Load a model; answered once it is loaded."""
    return _shown(exchange, await exchange.services.models.load(exchange.principal, model_id))


async def unload_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """Unload a model that nobody uses; answered once its memory is free."""
    unloaded = await exchange.services.models.unload(exchange.principal, model_id)
    return json_answer(
        ModelUnloaded(id=exchange.services.models.card(exchange.principal, model_id).model_id, unloaded=unloaded)
    )


async def pin_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """Keep a model in memory, once it is loaded, until the server's next start."""
    return _shown(exchange, await exchange.services.models.pin(exchange.principal, model_id, pinned=True))


async def unpin_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """Let a model be unloaded again to make room or for being idle."""
    return _shown(exchange, await exchange.services.models.pin(exchange.principal, model_id, pinned=False))


async def show_memory(exchange: Exchange) -> HTTPResponse:
    """The budget, and what the models hold of it."""
    report = exchange.services.models.memory()
    shown = {card.model_id for card in exchange.services.models.cards(exchange.principal)}
    held = {model.model_id: _gb(model.memory_bytes) for model in report.models if model.memory_bytes}
    return json_answer(
        ModelMemory(
            total_gb=_gb(report.budget.total_bytes),
            available_gb=_gb(report.available_bytes),
            models_loaded={model_id: size_gb for model_id, size_gb in held.items() if model_id in shown},
            reserved_gb=_gb(report.budget.reserved_bytes),
            margin_gb=_gb(report.budget.margin_bytes),
            models_gb=_gb(report.budget.models_bytes),
            used_gb=_gb(report.used_bytes),
        )
    )


def _shown(exchange: Exchange, status: ModelStatus) -> HTTPResponse:
    return json_answer(_model(exchange.services.engine.resolve(status.model_id), status))


def _model(card: ModelCard, status: ModelStatus) -> Model:
    return Model(
        id=card.model_id,
        created=card.created_at_s,
        owned_by=card.owned_by,
        type=card.type.value,
        aliases=list(card.aliases),
        input_modalities=list(card.input_modalities),
        context_length=card.context_length,
        available=card.available,
        status=status.phase.value,
        pinned=status.pinned,
        requests=status.requests,
        memory_bytes=status.memory_bytes,
        expected_memory_bytes=status.expected_bytes,
        progress=_rounded(status.progress),
        loading_s=_rounded(status.loading_s),
        idle_s=_rounded(status.idle_s),
        idle_timeout_s=status.idle_timeout_s,
        failure=status.failure,
        retry_after_s=_rounded(status.retry_after_s),
    )


def _gb(size_bytes: int) -> float:
    return round(size_bytes / BYTES_PER_GB, DIGITS)


def _rounded(number: float | None) -> float | None:
    return None if number is None else round(number, DIGITS)
