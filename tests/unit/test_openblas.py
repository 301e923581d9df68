"""Which BLAS a runner gets, and what an operator is told."""

import ctypes
import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

from manent.adapters.inference.openblas import (
    blas_of,
    find_openblas,
    main,
    openblas_advice,
    preload_problem,
    runner_environment,
)

linux_only = pytest.mark.skipif(
    sys.platform != "linux", reason="elsewhere mlx brings its own BLAS, and nothing is preloaded"
)


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """A BLAS that can be preloaded on this machine, whether or not OpenBLAS is installed: the one in mlx's wheel."""
    files = importlib.metadata.files("mlx-cpu") or []
    (bundled,) = (file for file in files if file.name.startswith("libblas"))
    path = tmp_path / "libblas.so"
    path.symlink_to(Path(str(bundled.locate())).resolve())
    return path


@pytest.mark.skipif(sys.platform == "linux", reason="what holds where nothing is to be done")
def test_nothing_is_preloaded_elsewhere() -> None:
    """On macOS a runner's environment is the server's own, and there is nothing to install."""
    assert find_openblas() is None
    assert runner_environment({"MANENT_OPENBLAS": "/usr/lib/libopenblas.so"}) == {
        "MANENT_OPENBLAS": "/usr/lib/libopenblas.so"
    }
    assert main() == 0


@linux_only
def test_the_library_is_preloaded_before_others(library: Path) -> None:
    """OpenBLAS answers first, what was preloaded already stays, and every other variable is untouched."""
    base = {"MANENT_OPENBLAS": str(library), "LD_PRELOAD": "/lib/libfirst.so", "HOME": "/root"}
    assert runner_environment(base) == {**base, "LD_PRELOAD": f"{library}:/lib/libfirst.so"}


@linux_only
@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "mlx"),
        ({"LD_PRELOAD": "/lib/libfirst.so"}, "mlx"),
        (
            {"LD_PRELOAD": "/lib/libfirst.so:/usr/lib/libopenblas.so.0", "OPENBLAS_NUM_THREADS": "3"},
            "libopenblas.so.0, 3 threads",
        ),
        ({"LD_PRELOAD": "/mine/libblas.so", "OPENBLAS_NUM_THREADS": "1"}, "libblas.so, 1 threads"),
    ],
)
def test_a_runner_says_what_multiplies_its_matrices(environment: dict[str, str], expected: str) -> None:
    """The library and its threads move the last bits of an answer, so they are a part of its provenance."""
    assert blas_of(environment) == expected


@linux_only
def test_the_library_is_preloaded_once(library: Path) -> None:
    """The environment of a runner that is started from a runner's environment does not grow."""
    once = runner_environment({"MANENT_OPENBLAS": str(library)})
    assert once["LD_PRELOAD"] == str(library)
    assert runner_environment(once) == once


@linux_only
def test_another_openblas_is_kept(library: Path) -> None:
    """An OpenBLAS that the operator preloads is not joined by a second one."""
    base = {"MANENT_OPENBLAS": str(library), "LD_PRELOAD": "/opt/mine/libopenblas.so.0.3"}
    assert runner_environment(base) == base


@linux_only
def test_an_empty_override_turns_it_off() -> None:
    """``MANENT_OPENBLAS=`` preloads nothing, also where OpenBLAS is installed, and the advice says so."""
    base = {"MANENT_OPENBLAS": ""}
    assert runner_environment(base) == base
    assert "turns OpenBLAS off" in openblas_advice(base)


@linux_only
def test_a_preloaded_process_has_the_library(library: Path) -> None:
    """A process that is started with a runner's environment finds the matrix product in the process itself."""
    environment = runner_environment({**os.environ, "MANENT_OPENBLAS": str(library)})
    program = "import ctypes; print(ctypes.CDLL(None).cblas_sgemm)"
    started = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, timeout=30, check=False
    )
    assert (started.returncode, started.stderr) == (0, b"")
    assert not hasattr(ctypes.CDLL(None), "cblas_sgemm"), "and this process, which is not preloaded, does not"


@linux_only
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"not a library", "cannot be preloaded"),
        ("another machine", "cannot be preloaded"),
    ],
)
def test_an_unusable_library_is_refused(
    library: Path, tmp_path: Path, content: bytes | str | None, reason: str
) -> None:
    """A file that the loader would skip with a warning is not preloaded, and the advice names it and the reason."""
    broken = tmp_path / "libbroken.so"
    if content == "another machine":
        elf = bytearray(library.read_bytes())
        elf[18:20] = (243).to_bytes(2, "little")  # e_machine: RISC-V
        broken.write_bytes(elf)
    elif isinstance(content, bytes):
        broken.write_bytes(content)
    base = {"MANENT_OPENBLAS": str(broken)}
    assert runner_environment(base) == base
    assert str(broken) in openblas_advice(base)
    assert reason in openblas_advice(base)


@linux_only
def test_a_library_without_the_c_interface_is_refused() -> None:
    """A library that loads but cannot multiply matrices for mlx is not preloaded."""
    (libc,) = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if "libc.so" in line}
    assert "cblas_sgemm" in (preload_problem(Path(libc)) or "")


@linux_only
def test_a_path_that_the_loader_would_split_is_refused(library: Path, tmp_path: Path) -> None:
    """LD_PRELOAD knows no quoting, so a path with a space is refused instead of preloading its halves."""
    spaced = tmp_path / "my libraries"
    spaced.mkdir()
    (spaced / "libblas.so").symlink_to(library)
    assert "without spaces" in (preload_problem(spaced / "libblas.so") or "")


@linux_only
def test_the_command_prints_the_library_or_the_advice(
    library: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Makefile can tell by the exit status whether something is to be done, and prints what."""
    monkeypatch.setenv("MANENT_OPENBLAS", str(library))
    assert (main(), capsys.readouterr().out) == (0, f"{library}\n")
    monkeypatch.setenv("MANENT_OPENBLAS", "/nowhere/libopenblas.so")
    assert main() == 1
    assert "/nowhere/libopenblas.so" in capsys.readouterr().out
