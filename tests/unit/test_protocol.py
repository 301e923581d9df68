"""Frames: what is written is read, at both ends, whole or not at all."""

from __future__ import annotations

import asyncio
import socket
import struct
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st

from manent.adapters.inference import protocol
from manent.adapters.inference.protocol import (
    Cancel,
    Counted,
    CountTokens,
    Delta,
    Failed,
    Finished,
    Generate,
    LoadFailed,
    Ping,
    Pong,
    Progress,
    ProtocolError,
    Ready,
    Render,
    Rendered,
    RunnerFacts,
    RunnerFrame,
    ServerFrame,
    Shutdown,
)
from manent.adapters.inference.server_connection import ServerConnection
from manent.domain.generation import FinishReason, SamplingParameters, Timings, TokenCandidate, TokenLogprobs, Usage
from manent.domain.messages import Message, Role, TextPart, ToolCall

ids = st.integers(0, 2**63 - 1)
words = st.text(st.characters(codec="utf-8"), max_size=20)
tokens = st.lists(st.integers(0, 2**31), max_size=9).map(tuple)
messages = st.lists(
    st.builds(
        Message,
        message_id=words,
        role=st.sampled_from(Role),
        content=st.lists(st.builds(TextPart, text=words), max_size=2).map(tuple),
        name=st.none() | words,
        tool_calls=st.lists(st.builds(ToolCall, id=words, name=words, arguments=words), max_size=2).map(tuple),
        tool_call_id=st.none() | words,
    ),
    max_size=3,
).map(tuple)
parameters = st.builds(
    SamplingParameters,
    temperature=st.floats(0, 2),
    top_p=st.floats(0.1, 1),
    max_tokens=ids,
    seed=ids,
    stop=st.lists(words, max_size=4).map(tuple),
    stop_token_ids=tokens,
    logit_bias=st.dictionaries(ids, st.floats(-100, 100), max_size=3),
    n=st.integers(1, 8),
    logprobs=st.booleans(),
)
candidates = st.builds(TokenCandidate, token_id=ids, token_bytes=st.binary(max_size=9), logprob=st.floats(-9999, 0))
logprobs = st.lists(
    st.builds(TokenLogprobs, chosen=candidates, top=st.lists(candidates, max_size=2).map(tuple)), max_size=2
).map(tuple)
server_frames = st.one_of(
    st.builds(Render, id=ids, messages=messages),
    st.builds(CountTokens, id=ids, messages=messages),
    st.builds(Generate, id=ids, token_ids=tokens, parameters=parameters),
    st.builds(Cancel, id=ids),
    st.builds(Ping, id=ids),
    st.just(Shutdown()),
)
facts = RunnerFacts(
    context_length=None,
    vocabulary_size=10,
    weights_digest="sha256:0",
    tokenizer_digest="sha256:1",
    template_digest="sha256:2",
    versions={"mlx": "1"},
    device="cpu",
    dtype="float32",
    quantization=None,
    memory_bytes=1,
    load_s=0.5,
)
runner_frames = st.one_of(
    st.just(Ready(facts=facts)),
    st.builds(LoadFailed, reason=words),
    st.builds(Rendered, id=ids, token_ids=tokens),
    st.builds(Counted, id=ids, token_counts=tokens),
    st.builds(Progress, id=ids, processed_tokens=ids, total_tokens=ids),
    st.builds(Delta, id=ids, text=words, token_ids=tokens, index=st.integers(0, 7), logprobs=logprobs),
    st.builds(
        Finished,
        id=ids,
        finish_reasons=st.lists(st.sampled_from(FinishReason), min_size=1, max_size=3).map(tuple),
        usage=st.builds(Usage, prompt_tokens=ids, completion_tokens=ids, cached_tokens=ids),
        timings=st.builds(Timings, queue_s=st.floats(0, 9), prefill_s=st.floats(0, 9), decode_s=st.floats(0, 9)),
        batch_size_max=ids,
    ),
    st.builds(Failed, id=ids, code=words, message=words),
    st.builds(Pong, id=ids, steps=ids, active=ids),
)


@given(server_frames)
def test_every_frame_of_the_server_is_read_as_it_was_written(frame: ServerFrame) -> None:
    """Encoding and decoding are inverse, domain objects included."""
    assert protocol.decode_server_frame(protocol.encode(frame)[4:]) == frame


@given(runner_frames)
def test_every_frame_of_the_runner_is_read_as_it_was_written(frame: RunnerFrame) -> None:
    """Encoding and decoding are inverse."""
    assert protocol.decode_runner_frame(protocol.encode(frame)[4:]) == frame


@given(st.binary(max_size=40))
def test_bytes_that_are_no_frame_break_the_protocol(body: bytes) -> None:
    """Nonsense is a ProtocolError, never another exception."""
    for decode in (protocol.decode_server_frame, protocol.decode_runner_frame):
        with pytest.raises(ProtocolError):
            decode(b"\xc1" + body)


async def read_all(data: bytes) -> list[RunnerFrame]:
    """The frames of a stream that ends after ``data``."""
    reader = asyncio.StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while (frame := await protocol.read_runner_frame(reader)) is not None:
        frames.append(frame)
    return frames


async def test_frames_are_told_apart_in_one_stream() -> None:
    """The length in front of each frame is what separates them."""
    frames: list[RunnerFrame] = [
        Delta(id=1, text="a", token_ids=(1,)),
        Delta(id=2, text="bc", token_ids=(2, 3)),
        Pong(id=3, steps=4, active=0),
    ]
    assert await read_all(b"".join(protocol.encode(frame) for frame in frames)) == frames


@pytest.mark.parametrize("kept", [1, 3, 4, 9])
async def test_a_stream_that_ends_within_a_frame_is_broken(kept: int) -> None:
    """Half a frame is not the same as no frame."""
    with pytest.raises(ProtocolError, match="middle of a frame"):
        await read_all(protocol.encode(Delta(id=1, text="abc", token_ids=(1,)))[:kept])


async def test_a_length_beyond_the_bound_is_refused_unread() -> None:
    """Nobody can make the server allocate what a length field announces."""
    with pytest.raises(ProtocolError, match="bound"):
        await read_all(struct.pack(">I", protocol.FRAME_MAX_BYTES + 1))


def test_a_frame_beyond_the_bound_is_not_sent() -> None:
    """The writer refuses what the reader would."""
    with pytest.raises(ProtocolError, match="bound"):
        protocol.encode(Delta(id=1, text="x" * protocol.FRAME_MAX_BYTES, token_ids=()))


def test_the_runners_end_reads_frames_that_come_in_pieces() -> None:
    """A socket delivers what it likes; a frame larger than its buffers still arrives whole."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        frame = Generate(
            id=7,
            token_ids=tuple(range(300_000)),
            parameters=SamplingParameters(temperature=0.0, top_p=1.0, max_tokens=1, seed=1),
        )

        def write() -> None:
            ours.sendall(protocol.encode(frame))
            ours.shutdown(socket.SHUT_WR)

        writer = Thread(target=write)
        writer.start()
        connection = ServerConnection(theirs)
        assert connection.read() == frame
        assert connection.read() is None
        writer.join()


async def test_the_servers_end_reads_what_the_runners_end_wrote() -> None:
    """Several frames written at once come out one by one, the last before the end of the stream."""
    ours, theirs = socket.socketpair()
    frames: list[RunnerFrame] = [Delta(id=1, text="é", token_ids=(5,)), Failed(id=2, code="c", message="m")]
    with theirs:
        ServerConnection(theirs).write(frames)
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    assert [await protocol.read_runner_frame(reader) for _ in range(3)] == [*frames, None]
    writer.close()
    await writer.wait_closed()
