"""A process of a sharded model other than its first: ``python -m manent.adapters.inference.shard_follower``.

It repeats what rank 0 does with its batch, and ends as soon as its standard input does.
"""

from __future__ import annotations

import argparse
import os
import queue
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import NoReturn

import msgspec

from manent.adapters.inference.model_folder import ModelFolderError, check_model_folder, weight_files
from manent.adapters.inference.protocol import ProtocolError
from manent.adapters.inference.shard_frames import Hello, Insert, Remove, ShardFrame, Step, read_frame
from manent.adapters.inference.shard_group import end_all, join_ring

_FRAMES_MAX = 4096
_Frames = queue.Queue[ShardFrame]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Find the model, say so, join the ring, load a part of the model, and follow."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    options = _parse(arguments)
    frames = _Frames(maxsize=_FRAMES_MAX)
    Thread(target=_read, args=(frames,), name="reader", daemon=True).start()
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
    try:
        check_model_folder(options.model)
        from manent.adapters.inference.digests import DigestCache  # noqa: PLC0415 (after a look at the folder)

        weights = [options.model / "config.json", *weight_files(options.model)]
        _say(Hello(weights_digest=DigestCache(options.digest_folder).digest_of_files(weights)))
    except (ModelFolderError, OSError) as error:
        _say(Hello(error=str(error)))
        os._exit(1)
    try:
        _follow(options, frames)
    except Exception as error:  # noqa: BLE001 (whatever it is, the others must not wait for this process)
        end_all(f"shard {options.rank} failed: {type(error).__name__}: {error}")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="manent.adapters.inference.shard_follower")
    parser.add_argument("--rank", type=int, required=True, help="which of the processes, from 1")
    parser.add_argument("--ring", required=True, help="the addresses of all processes, as MLX's ring reads them")
    parser.add_argument("--model", type=Path, required=True, help="the model's folder")
    parser.add_argument("--digest-folder", type=Path, required=True, help="where digests of files are remembered")
    return parser.parse_args(arguments)


def _read(frames: _Frames) -> NoReturn:
    """Hand frames on until rank 0 is gone. Ends the process at once, whatever it is evaluating."""
    try:
        while (frame := read_frame(sys.stdin.buffer)) is not None:
            frames.put_nowait(frame)
    except (ProtocolError, OSError, queue.Full) as error:
        end_all(f"the connection to rank 0 is broken: {error!r}")
    os._exit(0)


def _say(hello: Hello) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(hello) + b"\n")
    sys.stdout.buffer.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # nobody reads on: what libraries print must not fill a pipe


def _follow(options: argparse.Namespace, frames: _Frames) -> NoReturn:
    """Do to a batch what rank 0 does to its own."""
    from mlx_lm.generate import StopSequences  # noqa: PLC0415 (importing MLX takes seconds)

    from manent.adapters.inference.architectures import batch_limits  # noqa: PLC0415 (as above)
    from manent.adapters.inference.batch_limits import BatchLimits  # noqa: PLC0415 (as above)
    from manent.adapters.inference.prefix_keeping import discard_ended  # noqa: PLC0415 (as above)
    from manent.adapters.inference.sharding import ShardGenerator, load_shard  # noqa: PLC0415 (as above)

    group = join_ring(options.ring, rank=options.rank)
    model, _ = load_shard(str(options.model), group)
    generator = ShardGenerator(model, group, None, **batch_limits(model, BatchLimits()).of_mlx_lm)
    discard_ended(generator)
    while True:
        match frames.get():
            case Insert(segments=segments, max_tokens=max_tokens, stop_token_ids=stop_token_ids):
                stops = StopSequences([[token] for token in stop_token_ids])
                generator.insert_segments([segments], max_tokens=[max_tokens], stop_sequences=[stops])
            case Remove(uids=uids):
                generator.remove(uids)
            case Step(prefill_tokens=prefill_tokens):
                generator.prefill_step_size = prefill_tokens
                generator.next()  # type: ignore[no-untyped-call]  # mlx-lm is partly typed


if __name__ == "__main__":
    main()
