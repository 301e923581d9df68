"""Models of the registry as Anthropic's clients list them: those that answer messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from sanic import HTTPResponse

from manent.adapters.http.answers import json_answer
from manent.adapters.http.context import Exchange
from manent.adapters.http.errors import RequestRefused
from manent.adapters.http.query import FlagQuery, IntQuery, QueryParameter, TextQuery
from manent.adapters.http.wire_anthropic_answers import AnthropicModel, AnthropicModelList
from manent.domain.embedding import CHAT_TYPES
from manent.domain.generation import ModelCard

LIMIT_DEFAULT = 20
BETA_QUERY = FlagQuery(name="beta", says="accepted without effect; Anthropic's SDKs send it for what is new to them")
PAGE_QUERY: Sequence[QueryParameter] = (
    TextQuery(name="after_id", says="with anthropic-version: the id of the model that the page begins behind"),
    TextQuery(name="before_id", says="with anthropic-version: the id of the model that the page ends before"),
    IntQuery(name="limit", says="with anthropic-version: how many models to return", minimum=1, maximum=1000),
)


def anthropic_model_list(exchange: Exchange) -> HTTPResponse:
    """A page of the models that are there for whoever asks, in the registry's order.

    Raises:
        RequestRefused: no model of theirs has the id that the page is to begin or to end at.
    """
    query = exchange.query
    cards = [card for card in exchange.services.models.cards(exchange.principal) if card.type in CHAT_TYPES]
    after, before, limit = query["after_id"], query["before_id"], query["limit"] or LIMIT_DEFAULT
    if after is not None and before is not None:
        raise RequestRefused(
            "invalid_value", "after_id and before_id are two ways; send one of them", param="before_id"
        )
    if before is not None:
        rest = cards[: _index(cards, before, "before_id")]
        page = rest[-limit:]
    else:
        rest = cards if after is None else cards[_index(cards, after, "after_id") + 1 :]
        page = rest[:limit]
    answer = AnthropicModelList(
        data=[_model(card) for card in page],
        first_id=page[0].model_id if page else None,
        last_id=page[-1].model_id if page else None,
        has_more=len(rest) > len(page),
    )
    return json_answer(answer)


def anthropic_model(exchange: Exchange, model_id: str) -> HTTPResponse:
    """One model, by its id or an alias; raises ModelNotFound."""
    return json_answer(_model(exchange.services.models.card(exchange.principal, model_id)))


def refuse_pages(exchange: Exchange) -> None:
    """Raise RequestRefused where pages are asked for of OpenAI's list, which has none."""
    for row in PAGE_QUERY:
        if exchange.query[row.name] is not None:
            raise RequestRefused(
                "unknown_parameter",
                f"Unknown parameter: '{row.name}'. Lists have pages for clients that send anthropic-version alone.",
                param=row.name,
            )


def _index(cards: Sequence[ModelCard], model_id: str, param: str) -> int:
    found = next((index for index, card in enumerate(cards) if card.model_id == model_id), None)
    if found is None:
        raise RequestRefused("invalid_value", f"{param} is {model_id[:200]!r}, which is no model here", param=param)
    return found


def _model(card: ModelCard) -> AnthropicModel:
    return AnthropicModel(
        id=card.model_id,
        display_name=card.model_id,
        created_at=datetime.fromtimestamp(card.created_at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=card.context_length,
        max_tokens=card.context_length,
    )
