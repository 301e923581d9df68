"""Where the processes of a sharded model run: this machine, or the hosts of a file as ``mlx.launch`` has them."""

from __future__ import annotations

import json
import shlex
import socket
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from manent.adapters.inference.model_folder import ModelFolderError

FOLLOWER_MODULE = "manent.adapters.inference.shard_follower"
_FIRST_PORT = 32323
"""What mlx.launch counts from, too."""
_GROUPS, _GROUP_PORTS = 256, 64
"""Several models may be divided among the same hosts: each has a block of ports, by its folder's name."""
_LOOPBACK = "127.0.0.1"


class _Host(msgspec.Struct, frozen=True):
    """A host of the file: the name that ssh knows it by, and the addresses that the others reach it at."""

    ssh: str
    ips: tuple[str, ...] = ()


class _Hostfile(msgspec.Struct, frozen=True):
    """mlx.launch's hostfile, as far as a ring needs it."""

    hosts: tuple[_Host, ...]
    backend: str = "ring"
    envs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardHosts:
    """Who takes part: one address for each, by rank; ``ssh`` names are None on this machine. Rank 0 is this process.

    ``environment`` are settings (``NAME=value``) for processes that ssh starts.
    """

    addresses: tuple[str, ...]
    ssh: tuple[str | None, ...]
    environment: tuple[str, ...] = ()

    @property
    def ring(self) -> str:
        """What MLX's ring backend reads from the file that MLX_HOSTFILE names."""
        return json.dumps([[address] for address in self.addresses])

    def command(self, rank: int, arguments: Sequence[str]) -> list[str]:
        """The command line of the process of this rank."""
        command = [sys.executable, "-m", FOLLOWER_MODULE, f"--rank={rank}", f"--ring={self.ring}", *arguments]
        host = self.ssh[rank]
        if host is None:
            return command
        return ["ssh", "-o", "BatchMode=yes", host, shlex.join(["env", *self.environment, *command])]


def local_hosts(shards: int) -> ShardHosts:
    """So many processes of this machine, on ports that are free now."""
    sockets = [socket.create_server((_LOOPBACK, 0)) for _ in range(shards)]
    addresses = tuple(f"{_LOOPBACK}:{each.getsockname()[1]}" for each in sockets)
    for each in sockets:
        each.close()
    return ShardHosts(addresses=addresses, ssh=(None,) * shards)


def hosts_of_file(file: Path, *, model: Path, shards: int | None) -> ShardHosts:
    """The hosts of a file for a model, the first of which is this machine; ``shards`` is how many there have to be.

    Raises:
        ModelFolderError: it cannot be read, or says what this version cannot do.
    """
    try:
        content = file.read_bytes()
        found = msgspec.json.decode(content, type=_Hostfile | tuple[_Host, ...])
    except OSError as error:
        raise ModelFolderError(f"the hostfile {file} cannot be read: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise ModelFolderError(f"{file} is no hostfile of mlx.launch: {error}") from error
    hostfile = found if isinstance(found, _Hostfile) else _Hostfile(hosts=found)
    if hostfile.backend not in {"", "ring"}:
        raise ModelFolderError(f"{file} asks for the backend {hostfile.backend!r}; this version knows 'ring'")
    if any(not host.ips for host in hostfile.hosts):
        raise ModelFolderError(f"{file} has hosts without ips; each needs the address that the others reach it at")
    first_port = _FIRST_PORT + _GROUP_PORTS * (zlib.crc32(bytes(model)) % _GROUPS)
    if len(hostfile.hosts) < 2 or shards not in {None, len(hostfile.hosts)}:  # noqa: PLR2004 (one host is no group)
        raise ModelFolderError(f"{file} names {len(hostfile.hosts)} hosts; there must be {shards or 'at least 2'}")
    return ShardHosts(
        addresses=tuple(f"{host.ips[0]}:{first_port + rank}" for rank, host in enumerate(hostfile.hosts)),
        ssh=(None, *(host.ssh for host in hostfile.hosts[1:])),
        environment=hostfile.envs,
    )
