"""What each message adds to a prompt, counted once for each model: a turn does not tokenize the whole past."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from manent.domain.context import begins_unit, leading_system_length
from manent.domain.messages import Message
from manent.domain.ports import InferenceEngine

ENTRIES_MAX = 100_000
CHUNK = 64

_Key = tuple[str, str, str, str]
"""Model, tenant, and the ids of the message before and of the message: a template may look at both."""


class TokenCounts:
    """Counts of messages that have a place in a session, so that their ids name them; the least used are forgotten.

    A count is an estimate (``InferenceEngine.count_tokens``), so that one of a message that changed under its id is
    no danger: whoever chooses by counts renders what was chosen, and looks again.
    """

    def __init__(self, engine: InferenceEngine, *, entries_max: int = ENTRIES_MAX) -> None:
        self._engine = engine
        self._entries_max = entries_max
        self._counts: OrderedDict[_Key, int] = OrderedDict()

    async def at_the_end(
        self, model_id: str, tenant: str, messages: Sequence[Message], *, budget_tokens: int
    ) -> list[int]:
        """The counts that ``select_messages`` needs: of the system prompt, and backwards until the budget is full."""
        body = leading_system_length(messages)
        head = await self.counts(model_id, tenant, messages, range(body))
        tail: list[int] = []
        start, total, cuttable = len(messages), sum(head), False
        while start > body and (total <= budget_tokens or not cuttable):
            chunk = range(max(body, start - CHUNK), start)
            counts = await self.counts(model_id, tenant, messages, chunk)
            tail = counts + tail
            total += sum(counts)
            cuttable = cuttable or any(begins_unit(messages, index) for index in chunk)
            start = chunk.start
        return head + tail

    async def counts(self, model_id: str, tenant: str, messages: Sequence[Message], where: range) -> list[int]:
        """The counts of the messages in ``where``, asking the engine for those in between that are not known."""
        keys = [self._key(model_id, tenant, messages, index) for index in where]
        unknown = [index for index, key in zip(where, keys, strict=True) if key not in self._counts]
        fresh: dict[_Key, int] = {}
        if unknown:
            missing = range(unknown[0], unknown[-1] + 1)
            before = max(missing.start - 1, 0)
            counted = await self._engine.count_tokens(model_id, messages[before : missing.stop])
            counts = counted[missing.start - before :]
            fresh = {keys[index - where.start]: count for index, count in zip(missing, counts, strict=True)}
            self._keep(fresh)
        for key in keys:
            if key in self._counts:
                self._counts.move_to_end(key)
        return [fresh[key] if key in fresh else self._counts[key] for key in keys]

    def _keep(self, fresh: dict[_Key, int]) -> None:
        for key, count in fresh.items():
            self._counts[key] = count
        while len(self._counts) > self._entries_max:
            self._counts.popitem(last=False)

    def _key(self, model_id: str, tenant: str, messages: Sequence[Message], index: int) -> _Key:
        before = messages[index - 1].message_id if index else ""
        return model_id, tenant, before, messages[index].message_id
