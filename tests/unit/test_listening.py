"""The socket of a server: its permissions, and what is in its place already."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from manent.app.listening import CannotListen, address_of, listening
from manent.app.settings import Settings


def test_a_path_is_listened_on_with_its_permissions(tmp_path: Path) -> None:
    """Until the end; then it is gone."""
    path = tmp_path / "s"
    settings = Settings(unix_socket=path, unix_socket_mode="620", _env_file=None)
    with listening(settings) as bound:
        assert stat.S_IMODE(path.stat().st_mode) == 0o620
        assert address_of(settings, bound) == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    assert not path.exists()


def test_what_a_killed_server_left_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    """A socket that nobody listens on; never one in use, nor another file."""
    path = tmp_path / "s"
    settings = Settings(unix_socket=path, _env_file=None)
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))
        killed.listen()
        with pytest.raises(CannotListen, match="another program listens on"), listening(settings):
            pass
    with listening(settings):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_text("something of somebody's")
    with pytest.raises(CannotListen, match="is there and no socket"), listening(settings):
        pass
    assert path.read_text() == "something of somebody's"
    nowhere = Settings(unix_socket=tmp_path / "no" / "s", _env_file=None)
    with pytest.raises(CannotListen, match="MANENT_UNIX_SOCKET"), listening(nowhere):
        pass
