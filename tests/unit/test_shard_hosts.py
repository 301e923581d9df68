"""Where shards run, and what can be divided: read from hostfile and configuration, and explained where it is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.protocol import ProtocolError
from manent.adapters.inference.shard_frames import Insert, Remove, ShardFrame, Step, packed, read_frame
from manent.adapters.inference.shard_hosts import hosts_of_file, local_hosts
from manent.adapters.inference.sharding import check_divisible

MODEL = Path("/models/large")
ONE = {"ssh": "mac1.local", "ips": ["10.0.0.1"]}
TWO = {"ssh": "mac2.local", "ips": ["10.0.0.2"]}


def hostfile(folder: Path, content: object) -> Path:
    """A hostfile."""
    file = folder / "hosts.json"
    file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return file


@pytest.mark.parametrize("content", [[ONE, TWO], {"hosts": [ONE, TWO], "backend": "ring", "envs": ["A=b c"]}])
def test_the_hosts_of_a_file_make_a_ring(tmp_path: Path, content: object) -> None:
    """Both forms of mlx.launch's; the first host is this process, the others are reached by ssh."""
    hosts = hosts_of_file(hostfile(tmp_path, content), model=MODEL, shards=None)
    (first,), (second,) = json.loads(hosts.ring)
    assert (first.split(":")[0], second.split(":")[0]) == ("10.0.0.1", "10.0.0.2")
    assert int(second.split(":")[1]) == int(first.split(":")[1]) + 1 <= 65535
    other = hosts_of_file(hostfile(tmp_path, content), model=Path("/models/other"), shards=None)
    assert first not in other.ring
    *ssh, command = hosts.command(1, ["--model=/m m"])
    assert ssh == ["ssh", "-o", "BatchMode=yes", "mac2.local"]
    assert command.startswith("env 'A=b c' " if isinstance(content, dict) else "env /")
    assert command.endswith("'--model=/m m'")


def test_shards_of_this_machine_have_ports_of_their_own() -> None:
    """They are started without ssh."""
    hosts = local_hosts(3)
    assert len(set(hosts.addresses)) == 3
    assert "ssh" not in hosts.command(2, [])


@pytest.mark.parametrize(
    ("content", "shards", "says"),
    [
        ("{", None, "is no hostfile of mlx.launch"),
        ([{"ips": []}], None, "is no hostfile of mlx.launch"),
        ({"hosts": [ONE, TWO], "backend": "jaccl"}, None, "asks for the backend 'jaccl'; this version knows 'ring'"),
        ([ONE, {"ssh": "x"}], None, "has hosts without ips"),
        ([ONE], None, "names 1 hosts; there must be at least 2"),
        ([ONE, TWO], 3, "names 2 hosts; there must be 3"),
    ],
)
def test_mistakes_in_a_hostfile_are_named(tmp_path: Path, content: object, shards: int | None, says: str) -> None:
    """The file, and what would be right."""
    with pytest.raises(ModelFolderError, match=says):
        hosts_of_file(hostfile(tmp_path, content), model=MODEL, shards=shards)
    with pytest.raises(ModelFolderError, match="cannot be read"):
        hosts_of_file(tmp_path / "none.json", model=MODEL, shards=shards)


def test_what_cannot_be_divided_is_refused_with_what_can() -> None:
    """The starter model's nine heads go into three processes, and not into two."""
    starter: dict[str, Any] = {"num_attention_heads": 9, "num_key_value_heads": 3, "intermediate_size": 1536}
    check_divisible(starter, 3)
    with pytest.raises(ModelFolderError, match="in 2 shards: its num_attention_heads is 9; 3 would do"):
        check_divisible(starter, 2)


def test_frames_between_shards_survive_the_way() -> None:
    """One after another, until the other end is gone; half a frame is an end as well, and nonsense an error."""
    frames: list[ShardFrame] = [Insert([[1, 2], [3]], 5, [0]), Step(64), Remove([0])]
    data = b"".join(packed(frame) for frame in frames)
    stream = io.BytesIO(data)
    assert [read_frame(stream) for _ in range(4)] == [*frames, None]
    assert read_frame(io.BytesIO(data[:6])) is None
    with pytest.raises(ProtocolError, match="not a frame between shards"):
        read_frame(io.BytesIO(b"\x00\x00\x00\x01x"))
