"""Text completions as server-sent events: those of several prompts side by side in one stream.

Chunks have no ids: a text completion is not resumed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from manent.adapters.http.chat_stream import DONE, PING, EventWriter, stream_to_the_end
from manent.adapters.http.context import Exchange
from manent.adapters.http.delta_feed import DeltaFeed
from manent.adapters.http.text_members import TextChunkEncoder
from manent.domain.events import CompletionGenerated
from manent.domain.usecases.reader import Reader
from manent.domain.usecases.running import Accepted, RunningCompletion

NewChunks = Callable[[Sequence[Accepted]], Sequence[TextChunkEncoder]]
"""What makes events of completions, once all of them are accepted."""


async def stream_completions(exchange: Exchange, readers: Sequence[Reader], chunks: NewChunks) -> None:
    """Stream the completions of ``readers`` to the client.

    Raises:
        DomainError: a request was refused before all were accepted, and nothing was sent yet.
    """
    runs = [reader.running for reader in readers]
    accepting = asyncio.create_task(_all_accepted(runs), name=f"accept {runs[0].completion_id}")
    try:
        await asyncio.wait({accepting}, timeout=exchange.limits.ping_interval_s)
        if accepting.done():
            accepting.result()
        writer = await EventWriter.open(exchange, *readers)
        await stream_to_the_end(exchange, readers, _follow(writer, runs, accepting, chunks), writer)
    finally:
        accepting.cancel()


async def _all_accepted(runs: Sequence[RunningCompletion]) -> list[Accepted]:
    return [await running.accepted() for running in runs]


async def _follow(
    writer: EventWriter,
    runs: Sequence[RunningCompletion],
    accepting: asyncio.Task[list[Accepted]],
    chunks: NewChunks,
) -> None:
    """Send everything, and ``[DONE]`` only once the events that record the completions are committed."""
    encoders = chunks(await writer.kept_alive(accepting))
    await writer.send(b"".join(encoder.begin() for encoder in encoders))
    generated = await _side_by_side(writer, runs, encoders)
    ends = [encoder.finish(ended) for encoder, ended in zip(encoders, generated, strict=True)]
    await writer.end(b"".join(ends) + encoders[0].usage(generated) + DONE)


async def _side_by_side(
    writer: EventWriter, runs: Sequence[RunningCompletion], encoders: Sequence[TextChunkEncoder]
) -> list[CompletionGenerated]:
    """Follow all to their ends; the first that fails ends the others."""
    following = [
        asyncio.create_task(_follow_one(writer, running, encoder))
        for running, encoder in zip(runs, encoders, strict=True)
    ]
    try:
        return await asyncio.gather(*following)
    finally:
        for task in following:
            task.cancel()
        await asyncio.wait(following)


async def _follow_one(
    writer: EventWriter, running: RunningCompletion, encoder: TextChunkEncoder
) -> CompletionGenerated:
    async with DeltaFeed(running) as feed:
        while (deltas := await feed.take(writer.ping_interval_s)) is not None:
            await writer.send(b"".join(map(encoder.delta, deltas.pieces)) or PING)
    return await running.generated()
