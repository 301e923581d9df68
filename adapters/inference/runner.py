"""The runner: one process, one model. ``python -m manent.adapters.inference.runner`` is started by the supervisor.

Three threads: one reads frames and ends the process as soon as the server is gone; one renders prompts, so that
this need not wait for an evaluation; the main thread owns MLX and evaluates. An exception that leaves the main
thread ends the process, and the supervisor notices.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NoReturn, TypeVar

from manent.adapters.inference.embedding_frames import Embed
from manent.adapters.inference.inbox import Inbox, InboxFull
from manent.adapters.inference.model_folder import ModelFolderError, check_adapter_folder, check_model_folder
from manent.adapters.inference.prefix_settings import PrefixOptions
from manent.adapters.inference.protocol import (
    Cancel,
    CountTokens,
    Explain,
    Failed,
    Forget,
    Generate,
    LoadFailed,
    Ping,
    Pong,
    ProtocolError,
    Ready,
    Render,
    RunnerFrame,
    Shutdown,
    Tokenize,
)
from manent.adapters.inference.rendering import PromptRenderer
from manent.adapters.inference.runner_log import say, say_defects
from manent.adapters.inference.server_connection import ServerConnection
from manent.adapters.inference.shard_hosts import hosts_of_file, local_hosts
from manent.domain.embedding import ModelType

if TYPE_CHECKING:
    from manent.adapters.inference.embedding_model import EmbeddingModel
    from manent.adapters.inference.loading import LoadedModel

_T = TypeVar("_T")

_TEXT_REQUESTS_MAX = 1024
_EXIT_DONE = 0
_EXIT_LOAD_FAILED = 1
_EXIT_PROTOCOL = 70

TextRequest = Render | Explain | Tokenize | CountTokens | Embed
_TextRequests = queue.Queue[TextRequest]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Load the model, say so, and serve until the server is gone or says Shutdown."""
    # Ctrl-C reaches every process of the terminal; when to stop is the server's decision alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    say_defects()
    options = _parse(arguments)
    connection = ServerConnection(socket.socket(fileno=options.fd))
    inbox, text_requests = Inbox(), _TextRequests(maxsize=_TEXT_REQUESTS_MAX)
    Thread(target=_read, args=(connection, inbox, text_requests), name="reader", daemon=True).start()
    if options.type == ModelType.EMBEDDING:
        embedding = _load(connection, options, _load_embedding)
        _serve_embeddings(connection, embedding, inbox, text_requests)
    loaded = _load(connection, options, _loader(options))
    Thread(target=_render, args=(connection, loaded.renderer, text_requests), name="renderer", daemon=True).start()
    connection.write([Ready(facts=loaded.facts)])
    _evaluate(connection, loaded, inbox)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manent.adapters.inference.runner")
    parser.add_argument("--fd", type=int, required=True, help="the inherited socket that leads to the server")
    parser.add_argument("--type", choices=list(ModelType), default=ModelType.LLM, help="what the model is for")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--adapter", type=Path, help="the folder of a LoRA adapter")
    parser.add_argument("--draft", type=Path, help="the folder of a draft model")
    parser.add_argument("--draft-tokens", type=int, default=1, help="how many tokens it proposes at once")
    parser.add_argument("--shards", type=int, help="how many processes hold a part of the model each")
    parser.add_argument("--hosts", type=Path, help="mlx.launch's file of the hosts that these run on")
    parser.add_argument("--digest-folder", type=Path, required=True, help="where digests of files are remembered")
    parser.add_argument("--prefix-folder", type=Path, help="where prefix caches are kept on disk")
    parser.add_argument("--prefix-model", default="", help="the model's name there")
    parser.add_argument("--prefix-memory-bytes", type=int, default=0, help="bound of the prefix cache in memory")
    parser.add_argument("--prefix-disk-bytes", type=int, default=0, help="bound of all prefix caches on disk")
    return parser.parse_args(arguments)


def _read(connection: ServerConnection, inbox: Inbox, text_requests: _TextRequests) -> NoReturn:
    """Hand frames on until the server is gone. Ends the process at once, whatever the other threads are doing."""
    code = _EXIT_PROTOCOL
    try:
        while (frame := connection.read()) is not None and not isinstance(frame, Shutdown):
            if isinstance(frame, TextRequest):
                _queue_text_request(connection, frame, text_requests)
            else:
                inbox.put(frame)
        code = _EXIT_DONE
    except (ProtocolError, InboxFull, OSError) as error:
        say("the connection to the server is broken", error=error)
    finally:
        os._exit(code)


def _queue_text_request(connection: ServerConnection, frame: TextRequest, text_requests: _TextRequests) -> None:
    try:
        text_requests.put_nowait(frame)
    except queue.Full:
        message = f"{_TEXT_REQUESTS_MAX} texts wait to be tokenized"
        connection.write([Failed(id=frame.id, code="engine_busy", message=message)])


def _load(connection: ServerConnection, options: argparse.Namespace, load: Callable[[argparse.Namespace], _T]) -> _T:
    """The model; or, after saying why not, the end of the process."""
    # Nothing that a model's folder or code says may reach out to the internet.
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    try:
        return load(options)
    except ModelFolderError as error:
        reason = str(error)
    except Exception as error:  # noqa: BLE001 (whatever libraries and models raise becomes the reason that is shown)
        reason = f"{options.model} could not be loaded: {type(error).__name__}: {error}"[:1000]
    connection.write([LoadFailed(reason=reason)])
    os._exit(_EXIT_LOAD_FAILED)


def _loader(options: argparse.Namespace) -> Callable[[argparse.Namespace], LoadedModel]:
    if options.type == ModelType.VLM:
        return _load_vision
    return _load_text if options.shards is None and options.hosts is None else _load_sharded


def _load_text(options: argparse.Namespace) -> LoadedModel:
    # Before anything slow: a folder that is not complete is known in milliseconds.
    config = check_model_folder(options.model)
    if options.adapter is not None:
        check_adapter_folder(options.adapter)
    if options.draft is not None:
        check_model_folder(options.draft)
    # Importing MLX takes seconds, during which the reader must already watch for the server's end.
    from manent.adapters.inference.draft_loading import DraftFolder  # noqa: PLC0415 (only where MLX is used)
    from manent.adapters.inference.loading import load_model  # noqa: PLC0415 (only where MLX is used)

    return load_model(
        options.model,
        config,
        digest_folder=options.digest_folder,
        adapter=options.adapter,
        prefix=_prefix_options(options),
        draft=None if options.draft is None else DraftFolder(folder=options.draft, tokens=options.draft_tokens),
    )


def _load_sharded(options: argparse.Namespace) -> LoadedModel:
    config = check_model_folder(options.model)
    if options.hosts is None:
        hosts = local_hosts(options.shards)
    else:
        hosts = hosts_of_file(options.hosts, model=options.model, shards=options.shards)
    from manent.adapters.inference.shard_loading import load_sharded_model  # noqa: PLC0415 (only where MLX is used)

    return load_sharded_model(options.model, config, digest_folder=options.digest_folder, hosts=hosts)


def _load_vision(options: argparse.Namespace) -> LoadedModel:
    config = check_model_folder(options.model)
    from manent.adapters.inference.vision_loading import load_vision_model  # noqa: PLC0415 (only where MLX is used)

    return load_vision_model(options.model, config, digest_folder=options.digest_folder)


def _load_embedding(options: argparse.Namespace) -> EmbeddingModel:
    config = check_model_folder(options.model)
    from manent.adapters.inference.embedding_model import load_embedding_model  # noqa: PLC0415 (only where it is used)

    return load_embedding_model(options.model, config, digest_folder=options.digest_folder)


def _serve_embeddings(
    connection: ServerConnection, model: EmbeddingModel, inbox: Inbox, text_requests: _TextRequests
) -> NoReturn:
    from manent.adapters.inference.embedding_runner import (  # noqa: PLC0415 (only where it is used)
        evaluate_embeddings,
        tokenize_inputs,
    )

    tokenizing = (connection, model, inbox, text_requests)
    Thread(target=tokenize_inputs, args=tokenizing, name="tokenizer", daemon=True).start()
    connection.write([Ready(facts=model.facts)])
    evaluate_embeddings(connection, model, inbox)


def _prefix_options(options: argparse.Namespace) -> PrefixOptions | None:
    if options.prefix_folder is None:
        return None
    return PrefixOptions(
        folder=options.prefix_folder,
        model=options.prefix_model,
        memory_bytes=options.prefix_memory_bytes,
        disk_bytes=options.prefix_disk_bytes,
    )


def _render(connection: ServerConnection, renderer: PromptRenderer, text_requests: _TextRequests) -> None:
    while True:
        request = text_requests.get()
        if isinstance(request, Embed):
            message = "the model generates text, and makes no embeddings"
            connection.write([Failed(id=request.id, code="invalid_value", message=message)])
        else:
            connection.write([renderer.answer(request)])


def _evaluate(connection: ServerConnection, loaded: LoadedModel, inbox: Inbox) -> NoReturn:
    """Between any two evaluations, let requests join and leave."""
    batch = loaded.batch
    while True:
        frames: list[RunnerFrame] = []
        for received in inbox.take(wait=batch.active == 0):
            match received.frame:
                case Generate() as request:
                    frames += batch.add(request, received_s=received.at_s)
                case Cancel(id=request_id):
                    batch.cancel(request_id)
                case Forget(tenant=tenant, conversation=conversation):
                    batch.prefixes.forget(tenant, conversation)
                case Ping(id=ping_id):
                    pong = Pong(
                        id=ping_id,
                        steps=batch.steps,
                        active=batch.active,
                        memory_bytes=loaded.device_bytes(),
                        prefix=batch.prefixes.stats(),
                    )
                    frames.append(pong)
        if frames:
            connection.write(frames)
        if batch.active and (frames := batch.step()):
            connection.write(frames)


if __name__ == "__main__":
    main()
