"""What a runner does whose model makes embeddings; see ``runner`` for what all runners have in common."""

from __future__ import annotations

import os
import queue
from typing import NoReturn

from manent.adapters.inference.embedding_batch import EmbeddingBatch, EmbeddingLimits
from manent.adapters.inference.embedding_frames import Embed
from manent.adapters.inference.embedding_inputs import InputTokenizer
from manent.adapters.inference.embedding_model import EmbeddingModel
from manent.adapters.inference.inbox import Inbox
from manent.adapters.inference.model_facts import device_bytes, on_cpu
from manent.adapters.inference.protocol import Cancel, CountTokens, Explain, Failed, Generate, Ping, Pong, Render
from manent.adapters.inference.server_connection import ServerConnection

# On a CPU nothing is gained beyond some hundreds of tokens, and a step takes some hundred milliseconds.
_LIMITS_CPU = EmbeddingLimits(inputs=32, tokens=1024)
_LIMITS_GPU = EmbeddingLimits()

_EXIT_DEFECT = 70

TextRequest = Render | Explain | CountTokens | Embed


def tokenize_inputs(
    connection: ServerConnection, model: EmbeddingModel, inbox: Inbox, requests: queue.Queue[TextRequest]
) -> NoReturn:
    """The thread that makes tokens of texts, and hands the requests on to the one that evaluates."""
    tokenizer = InputTokenizer(
        model.tokenizer,
        tokens_max=model.tokens_max,
        vocabulary_size=model.vocabulary_size,
        dimensions=model.dimensions,
    )
    try:
        while True:
            request = requests.get()
            answer = tokenizer.tokenized(request) if isinstance(request, Embed) else _not_served(request.id)
            if isinstance(answer, Embed):
                inbox.put(answer)
            else:
                connection.write([answer])
    finally:
        os._exit(_EXIT_DEFECT)  # without this thread, requests would wait for ever


def evaluate_embeddings(connection: ServerConnection, model: EmbeddingModel, inbox: Inbox) -> NoReturn:
    """Between any two evaluations, let requests join and leave."""
    batch = EmbeddingBatch(model.vectors, model.pooling, _LIMITS_CPU if on_cpu() else _LIMITS_GPU)
    while True:
        for received in inbox.take(wait=batch.active == 0):
            match received.frame:
                case Embed() as request:
                    batch.add(request)
                case Cancel(id=request_id):
                    batch.cancel(request_id)
                case Generate(id=request_id):
                    connection.write([_not_served(request_id)])
                case Ping(id=ping_id):
                    pong = Pong(id=ping_id, steps=batch.steps, active=batch.active, memory_bytes=device_bytes())
                    connection.write([pong])
        if batch.active and (frames := batch.step()):
            connection.write(frames)


def _not_served(request_id: int) -> Failed:
    return Failed(id=request_id, code="invalid_value", message="the model makes embeddings, and generates no text")
