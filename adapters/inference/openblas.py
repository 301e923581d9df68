"""Finding OpenBLAS on this machine and putting it in front of a runner's own BLAS.

The wheel of mlx for Linux links the reference BLAS, which multiplies matrices at 2 GFLOPS where OpenBLAS reaches
150. A library that is preloaded answers first, so a runner started with ``LD_PRELOAD`` is fast without any change
to the wheel. On macOS mlx uses Metal and Accelerate, and nothing here applies.

``python -m manent.adapters.inference.openblas`` says how this machine stands: the Makefile asks it.
"""

import functools
import os
import platform
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path

OVERRIDE_VARIABLE = "MANENT_OPENBLAS"
"""The library to preload, instead of the one that would be found; empty preloads none."""

PRELOAD_VARIABLE = "LD_PRELOAD"
_PROBE_TIMEOUT_S = 20
# Asks the started process, not the file: the loader only warns where it cannot preload (another architecture, a
# missing dependency, a folder mounted noexec), and some distributions split the C interface off.
_PROBE = "import ctypes; ctypes.CDLL(None).cblas_sgemm"
_INSTALL_COMMANDS = {
    "/etc/debian_version": "apt-get install libopenblas0-pthread",
    "/etc/redhat-release": "dnf install openblas-threads",
    "/etc/arch-release": "pacman -S openblas",
}


def find_openblas(environment: Mapping[str, str] = os.environ) -> Path | None:
    """The OpenBLAS that a process of this machine can preload, or None.

    ``MANENT_OPENBLAS`` in ``environment`` is the only candidate where it is set; where it is set and empty, there
    is none. Always None on macOS.
    """
    if sys.platform != "linux":
        return None
    return next((path for path in _candidates(environment) if preload_problem(path) is None), None)


def openblas_advice(environment: Mapping[str, str] = os.environ) -> str:
    """What an operator should type to get a fast BLAS, in one or two sentences."""
    if sys.platform != "linux":
        return "Nothing to do: OpenBLAS is of use on Linux only."
    override = environment.get(OVERRIDE_VARIABLE)
    if override == "":
        return f"{OVERRIDE_VARIABLE} is set and empty, which turns OpenBLAS off: unset it to have one found."
    if override is not None:
        problem = preload_problem(Path(override)) or "it is usable"
        return f"{OVERRIDE_VARIABLE} names {override}: {problem}. Name a libopenblas.so, or unset it to have one found."
    for marker, command in _INSTALL_COMMANDS.items():
        if Path(marker).exists():
            return f"Type: sudo {command}"
    return f"Install your system's threaded OpenBLAS, or set {OVERRIDE_VARIABLE} to the path of a libopenblas.so.0"


def runner_environment(base: Mapping[str, str]) -> dict[str, str]:
    """``base`` for a runner process: with OpenBLAS preloaded first where there is one, and otherwise unchanged.

    An OpenBLAS that ``base`` already preloads is left as it is, be it another build: two in one process would
    each start their threads.
    """
    environment = dict(base)
    preloaded = environment.get(PRELOAD_VARIABLE, "")
    if any(Path(entry).name.startswith("libopenblas") for entry in preloaded.replace(":", " ").split()):
        return environment
    library = find_openblas(base)
    if library is not None and str(library) not in preloaded.replace(":", " ").split():
        environment[PRELOAD_VARIABLE] = f"{library}:{preloaded}" if preloaded else str(library)
    return environment


def blas_of(environment: Mapping[str, str]) -> str:
    """The BLAS of a runner with this environment: the preloaded library with its threads, else MLX's own."""
    preloaded = [Path(entry).name for entry in environment.get(PRELOAD_VARIABLE, "").replace(":", " ").split()]
    libraries = [name for name in preloaded if "blas" in name]
    if not libraries:
        return "mlx"
    return f"{libraries[0]}, {environment.get('OPENBLAS_NUM_THREADS') or len(os.sched_getaffinity(0))} threads"


@functools.cache
def preload_problem(library: Path) -> str | None:
    """Why a process of this machine cannot preload ``library``; None where it can. Found out by doing it."""
    if not library.is_file():
        return "there is no such file"
    if not library.is_absolute() or any(character in str(library) for character in ": \t\n"):
        return f"{PRELOAD_VARIABLE} can only hold absolute paths without spaces and colons"
    environment = {**os.environ, PRELOAD_VARIABLE: str(library), "OPENBLAS_NUM_THREADS": "1"}
    try:
        probe = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _PROBE],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"a process that preloads it does not answer within {_PROBE_TIMEOUT_S} s"
    if probe.returncode == 0:
        return None
    complaints = probe.stderr.decode(errors="replace").strip().splitlines()
    refusals = [line for line in complaints if "cannot be preloaded" in line]  # the loader's; else it is the probe's
    return (refusals[:1] or complaints[-1:] or [f"a process that preloads it ends with {probe.returncode}"])[0]


def _candidates(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where OpenBLAS may lie, best first: builds with threads of their own come before those without."""
    override = environment.get(OVERRIDE_VARIABLE)
    if override is not None:
        if override:
            yield Path(override)
        return
    triple = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
    yield Path(f"/usr/lib/{triple}/openblas-pthread/libopenblas.so.0")  # Debian, Ubuntu: libopenblas0-pthread
    yield Path(f"/usr/lib/{triple}/openblas-openmp/libopenblas.so.0")
    yield Path(f"/usr/lib/{triple}/libopenblas.so.0")
    for folder in ("/usr/lib64", "/usr/lib", "/usr/local/lib64", "/usr/local/lib", "/opt/OpenBLAS/lib"):
        for name in ("libopenblasp.so.0", "libopenblas.so.0"):  # Fedora's libopenblasp is the threaded one
            yield Path(folder, name)


def main() -> int:
    """Print the library that runners will preload, or else what to type; 0 where nothing is to be done."""
    library = find_openblas()
    sys.stdout.write(f"{library or openblas_advice()}\n")
    return 0 if library is not None or sys.platform != "linux" else 1


if __name__ == "__main__":
    sys.exit(main())
