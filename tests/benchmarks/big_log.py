"""A log of any size as a busy server leaves it, made through the store's own appends: valid to the last hash.

Seven in ten events are of the tenant ``default``. A few people and one model do most of the work, as it is everywhere;
most completions stand in sessions of a few turns, some are stateless, and one in fifty fails or is cancelled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from manent.domain import events as e
from manent.domain.commitments import SaltedDigest
from manent.domain.completion_input import ContextUsed
from manent.domain.generation import FinishReason, Provenance, SamplingParameters, Timings, Truncation, Usage
from manent.domain.messages import Message, Role, TextPart
from manent.domain.ports import EventStore
from manent.domain.records import EventContext
from tests.support.fakes import FakeClock

GROUP = 400
SECONDS_BETWEEN_GROUPS = 20.0
MODELS = ("smollm2-135m-instruct", "qwen3-8b-4bit", "llama-3.3-70b-4bit", "gemma-3-27b-4bit")
MODEL_WEIGHTS = (80, 14, 5, 1)
TENANTS = ("default", "acme", "globex", "initech")
TENANT_WEIGHTS = (70, 20, 8, 2)
ACTORS = tuple(f"person-{number}" for number in range(200))
ACTOR_WEIGHTS = tuple(1 / (number + 1) for number in range(len(ACTORS)))
FAILED_SHARE, CANCELLED_SHARE, STATELESS_SHARE, CORRELATED_SHARE = 0.01, 0.01, 0.2, 0.5
TURNS_MAX = 12
TEXT = (
    "the quick log of an old house keeps every word that was said and what it cost to say it again when somebody asks "
    "for proof of the third answer in a long conversation about ships trees and money which nobody remembers"
)
WORDS = TEXT.split()
PROVENANCE = Provenance(
    weights_digest="sha256:" + "0f" * 32,
    tokenizer_digest="sha256:" + "1e" * 32,
    template_digest="sha256:" + "2d" * 32,
    versions={"mlx": "0.32.0", "mlx-lm": "0.32.1"},
    device="Device(gpu, 0)",
    dtype="bfloat16",
    quantization="4 bit, group 64",
    batch_size_max=4,
)


@dataclass(frozen=True, slots=True)
class _Append:
    stream_id: str
    events: list[e.DomainEvent]
    expected_version: int
    context: EventContext


class LogWriter:
    """Writes what a random source decides: the same seed makes the same conversations."""

    def __init__(self, store: EventStore, clock: FakeClock, *, seed: int = 1) -> None:
        self._store = store
        self._clock = clock
        self._random = random.Random(seed)
        self._numbers = 0

    async def write(self, count: int) -> None:
        """Append ``count`` events."""
        left = count
        group: list[_Append] = []
        for append in self._appends():
            group.append(append if len(append.events) <= left else replace(append, events=append.events[:left]))
            left -= len(group[-1].events)
            if len(group) >= GROUP or left == 0:
                await self._commit(group)
                group = []
            if left == 0:
                return

    async def _commit(self, group: list[_Append]) -> None:
        self._clock.advance(SECONDS_BETWEEN_GROUPS)
        async with asyncio.TaskGroup() as tasks:
            for one in group:
                tasks.create_task(
                    self._store.append(
                        one.stream_id, one.events, expected_version=one.expected_version, context=one.context
                    )
                )

    def _appends(self) -> Iterator[_Append]:
        while True:
            tenant = self._random.choices(TENANTS, TENANT_WEIGHTS)[0]
            actor = self._random.choices(ACTORS, ACTOR_WEIGHTS)[0]
            correlated = self._random.random() < CORRELATED_SHARE
            correlation_id = self._id("corr") if correlated else None
            context = EventContext(tenant=tenant, actor=actor, correlation_id=correlation_id)
            if self._random.random() < STATELESS_SHARE:
                yield from self._stateless(context)
            else:
                yield from self._session(context)

    def _session(self, context: EventContext) -> Iterator[_Append]:
        session_id, now_us = self._id("sess"), self._clock.now_us()
        started = e.SessionStarted(
            session_id=session_id,
            tenant=context.tenant,
            owner=context.actor,
            metadata={"team": self._random.choice(("blue", "red"))},
            ttl_s=None,
            parent=None,
            started_at_us=now_us,
        )
        stream_id = e.session_stream(session_id)
        yield _Append(stream_id, [started], 0, replace(context, request_id=self._id("req")))
        version, ids = 1, list[str]()
        for _ in range(min(TURNS_MAX, 1 + int(self._random.expovariate(0.4)))):
            asked = self._message(Role.USER)
            ids.append(asked.message_id)
            requested = self._requested(session_id, tuple(ids))
            own = replace(context, request_id=self._id("req"))
            said = self._appended(session_id, asked, context.actor, None)
            yield _Append(stream_id, [said, requested], version, own)
            outcome = self._outcome(requested)
            closing: list[e.DomainEvent] = [outcome]
            if isinstance(outcome, e.CompletionGenerated):
                answer = Message(
                    message_id=outcome.message_id,
                    role=Role.ASSISTANT,
                    content=(TextPart(text=outcome.text or ""),),
                )
                ids.append(answer.message_id)
                closing.append(self._appended(session_id, answer, "assistant", requested.completion_id))
            yield _Append(stream_id, closing, version + 2, own)
            version += 2 + len(closing)

    def _stateless(self, context: EventContext) -> Iterator[_Append]:
        requested = self._requested(None, ())
        own = replace(context, request_id=self._id("req"))
        stream_id = e.completion_stream(requested.completion_id)
        yield _Append(stream_id, [requested], 0, own)
        yield _Append(stream_id, [self._outcome(requested)], 1, own)

    def _requested(self, session_id: str | None, message_ids: tuple[str, ...]) -> e.CompletionRequested:
        context = ContextUsed(message_ids=message_ids, dropped=None, truncation=Truncation.DISABLED)
        return e.CompletionRequested(
            completion_id=self._id("chatcmpl"),
            session_id=session_id,
            model_asked="default",
            model_id=self._random.choices(MODELS, MODEL_WEIGHTS)[0],
            parameters=SamplingParameters(
                temperature=self._random.choice((0.0, 0.7, 1.0)), top_p=1.0, max_tokens=512, seed=self._numbers
            ),
            context=context if session_id is not None else None,
            input=(),
            prompt_tokens=self._random.randrange(10, 2000),
            prompt_digest=self._digest(),
            stream=True,
            user=None,
            metadata={},
            requested_at_us=self._clock.now_us(),
        )

    def _outcome(self, requested: e.CompletionRequested) -> e.CompletionOutcome:
        fate, now_us = self._random.random(), self._clock.now_us()
        common: dict[str, Any] = {
            "completion_id": requested.completion_id,
            "session_id": requested.session_id,
            "model_id": requested.model_id,
        }
        if fate < FAILED_SHARE:
            return e.CompletionFailed(
                **common,
                code="runner_crashed",
                reason="the runner ended by signal 9",
                text=None,
                token_ids=None,
                usage=None,
                failed_at_us=now_us,
            )
        if fate < FAILED_SHARE + CANCELLED_SHARE:
            return e.CompletionCancelled(
                **common,
                reason="client_disconnected",
                text=None,
                token_ids=None,
                usage=None,
                cancelled_at_us=now_us,
            )
        tokens = min(400, 1 + int(self._random.expovariate(1 / 60)))
        content = requested.session_id is not None
        return e.CompletionGenerated(
            **common,
            message_id=self._id("msg"),
            text=self._text(tokens) if content else None,
            text_digest=self._digest(),
            token_ids=tuple(self._random.choices(range(49_152), k=tokens)) if content else None,
            finish_reason=FinishReason.STOP if tokens < 400 else FinishReason.LENGTH,
            usage=Usage(prompt_tokens=requested.prompt_tokens, completion_tokens=tokens),
            timings=Timings(queue_s=0.001, prefill_s=0.1 + fate, decode_s=tokens / 40),
            provenance=PROVENANCE,
            generated_at_us=now_us,
        )

    def _message(self, role: Role) -> Message:
        return Message(message_id=self._id("msg"), role=role, content=(TextPart(text=self._text(25)),))

    def _appended(self, session_id: str, message: Message, by: str, completion_id: str | None) -> e.MessageAppended:
        return e.MessageAppended(
            session_id=session_id,
            message=message,
            appended_by=by,
            completion_id=completion_id,
            appended_at_us=self._clock.now_us(),
        )

    def _text(self, words: int) -> str:
        return " ".join(self._random.choices(WORDS, k=words))

    def _digest(self) -> SaltedDigest:
        return SaltedDigest(
            salt=f"{self._random.getrandbits(256):064x}", digest=f"{self._random.getrandbits(256):064x}"
        )

    def _id(self, prefix: str) -> str:
        self._numbers += 1
        return f"{prefix}_{self._random.getrandbits(128):032x}"
