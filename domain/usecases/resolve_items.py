"""From the items of a request to messages: references looked up, parts of one message put together."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from manent.domain.access import Principal
from manent.domain.errors import InvalidValue
from manent.domain.events import CompletionGenerated
from manent.domain.items import Item, ItemReference, find_item, merged, message_ids_of, part_of
from manent.domain.messages import Message
from manent.domain.ports import Ids
from manent.domain.response_errors import ResponseNotFound
from manent.domain.responses import response_of
from manent.domain.usecases.read_responses import ReadResponses

Part = Message | ItemReference


class ResolveItems:
    """Finds what references mean: an item of the conversation, or one that any stored response put out."""

    def __init__(self, *, responses: ReadResponses, ids: Ids) -> None:
        self._responses = responses
        self._ids = ids

    async def run(self, principal: Principal, parts: Sequence[Part], past: Sequence[Message]) -> tuple[Message, ...]:
        """The messages that ``parts`` add up to, behind ``past``.

        Raises:
            InvalidValue: a reference leads nowhere that ``principal`` may look.
        """
        return merged([await self._part(principal, part, past) for part in parts])

    async def _part(self, principal: Principal, part: Part, past: Sequence[Message]) -> Message:
        if isinstance(part, Message):
            return part
        found = find_item(past, part.item_id)
        item = found[1] if found is not None else await self._put_out(principal, part.item_id)
        if item is None:
            raise InvalidValue(
                f"Item with id '{part.item_id[:160]}' not found: it is no item of this conversation, and no stored "
                "response put it out.",
                param=part.param,
            )
        return replace(part_of(item), message_id=self._ids.new("msg_"))

    async def _put_out(self, principal: Principal, item_id: str) -> Item | None:
        for message_id in message_ids_of(item_id):
            with suppress(ResponseNotFound):
                response = await self._responses.get(principal, response_of(message_id))
                if isinstance(response.outcome, CompletionGenerated):
                    found = find_item([response.outcome.answer], item_id)
                    return None if found is None else found[1]
        return None
