"""The other processes of a sharded model, as its first one has them: started, told, and never outlived by anybody.

Where one of them ends, so does this process, and the supervisor starts all of them anew; where this one ends, however
that happens, the others read the end of their standard input.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, NoReturn

import msgspec

from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.shard_frames import Hello, ShardFrame, packed
from manent.adapters.inference.shard_hosts import ShardHosts

if TYPE_CHECKING:
    import mlx.core as mx

EXIT_SHARD_LOST = 71
_HELLO_MAX_BYTES = 4096


class ShardGroup:
    """The processes of ranks 1 and up."""

    def __init__(self, hosts: ShardHosts, arguments: Sequence[str]) -> None:
        self._hosts = hosts
        self._others = [
            subprocess.Popen(hosts.command(rank, arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            for rank in range(1, len(hosts.addresses))
        ]

    @property
    def pids(self) -> tuple[int, ...]:
        """Of the others; where a host is another one, of the ssh that leads there."""
        return tuple(process.pid for process in self._others)

    def wait_until_there(self, weights_digest: str) -> None:
        """Wait until the others have found the model; from then on, who ends takes this process along.

        Raises:
            ModelFolderError: one of them has not, or it is another one there.
        """
        for rank, process in enumerate(self._others, start=1):
            hello = _hello(process)
            where = self._hosts.ssh[rank] or "this machine"
            if hello.error:
                raise ModelFolderError(f"shard {rank} on {where}: {hello.error}")
            if hello.weights_digest != weights_digest:
                raise ModelFolderError(f"shard {rank} on {where} has other weights; copy the same files to all hosts")
            Thread(target=_watch, args=(rank, process), name=f"shard-{rank}", daemon=True).start()

    def join(self) -> mx.distributed.Group:
        """Become rank 0 of the ring."""
        return join_ring(self._hosts.ring, rank=0)

    def tell(self, frame: ShardFrame) -> None:
        """Have the others do what this process does next; the end of this process where one is gone."""
        data = packed(frame)
        for rank, process in enumerate(self._others, start=1):
            pipe = process.stdin
            try:
                if pipe is not None:
                    pipe.write(data)
                    pipe.flush()
            except OSError as error:
                end_all(f"shard {rank} takes no frames: {error}")


def join_ring(ring: str, *, rank: int) -> mx.distributed.Group:
    """Join MLX's ring (https://ml-explore.github.io/mlx/build/html/usage/distributed.html) under this rank.

    Raises:
        RuntimeError: the others cannot be reached.
    """
    import mlx.core as mx  # noqa: PLC0415 (it takes seconds, and ranks are started before)

    with tempfile.TemporaryDirectory(prefix="manent-ring-") as folder:
        file = Path(folder) / "hosts.json"
        file.write_text(ring, encoding="utf-8")
        os.environ.update(MLX_HOSTFILE=str(file), MLX_RANK=str(rank))
        return mx.distributed.init(strict=True, backend="ring")


def end_all(reason: str) -> NoReturn:
    """End this process, and with it all others of the model."""
    sys.stderr.write(f"{reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_SHARD_LOST)


def _hello(process: subprocess.Popen[bytes]) -> Hello:
    """The line that a process says first; it comes, or the process ends, or the supervisor loses patience."""
    line = b"" if process.stdout is None else process.stdout.readline(_HELLO_MAX_BYTES)
    try:
        return msgspec.json.decode(line, type=Hello)
    except msgspec.DecodeError:
        return Hello(error="it could not be started, or ended at once; is Manent there, at the same path?")


def _watch(rank: int, process: subprocess.Popen[bytes]) -> None:
    code = process.wait()
    end_all(f"shard {rank} ended with exit status {code}")
