"""``manent doctor`` on the machine: MLX as a runner has it, memory for the models, plugins."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

from manent.adapters.inference.memory import expected_bytes, machine_budget
from manent.adapters.inference.openblas import runner_environment
from manent.adapters.inference.registry import BYTES_PER_GB, load_registry
from manent.adapters.inference.registry_entries import RegistryError
from manent.adapters.plugins.loading import load_plugins
from manent.app.findings import Finding, failure, ok, warning
from manent.app.plugins import OWN_ENGINES
from manent.app.settings import Settings
from manent.domain.extensions import PluginError

RUNNER_S = 60.0
_PROGRAM = """
import manent.adapters.inference.runner
import mlx.core as mx
mx.eval(mx.ones((8, 8)) @ mx.ones((8, 8)))
print(mx.default_device())
"""


def examine_machine(settings: Settings) -> Iterator[Finding]:
    """The checks of this file, in order."""
    if settings.engine == "mlx":
        yield _runner()
        yield _memory(settings)
    if settings.plugin_names or settings.engine not in OWN_ENGINES:
        yield _plugins(settings)


def _runner() -> Finding:
    """A process started as runners are, which evaluates something."""
    try:
        done = subprocess.run(  # noqa: S603 (our own program, by the same Python)
            [sys.executable, "-c", _PROGRAM],
            env=runner_environment(os.environ),
            capture_output=True,
            text=True,
            timeout=RUNNER_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return failure("runner", f"no runner can be started: {error}", "is the machine overloaded?")
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        return failure("runner", f"a runner cannot use MLX: {last:.300}", "run `make install`")
    device = done.stdout.strip()
    if sys.platform == "darwin" and "gpu" not in device:
        return warning("runner", f"it evaluates on {device}, without Metal", "run it on Apple silicon, outside a VM")
    return ok("runner", f"it starts and evaluates on {device}")


def _memory(settings: Settings) -> Finding:
    def given_bytes(gigabytes: float | None) -> int | None:
        return None if gigabytes is None else int(gigabytes * BYTES_PER_GB)

    budget = machine_budget(
        total_bytes=given_bytes(settings.memory_total_gb),
        reserved_bytes=given_bytes(settings.memory_reserved_gb),
        margin_bytes=given_bytes(settings.memory_margin_gb),
    )
    detail = f"{budget.models_bytes / BYTES_PER_GB:.1f} of {budget.total_bytes / BYTES_PER_GB:.1f} GB for models"
    try:
        models = load_registry(settings.models_file, settings.models_folder).models
    except RegistryError:
        return ok("memory", detail)  # the check of the models tells what is wrong
    too_large = [model.card.model_id for model in models if (expected_bytes(model, None) or 0) > budget.models_bytes]
    if too_large:
        return warning(
            "memory",
            f"{detail}: too little for {', '.join(too_large)}",
            "import a smaller quantization with `manent models add`, or set MANENT_MEMORY_RESERVED_GB",
        )
    return ok("memory", detail)


def _plugins(settings: Settings) -> Finding:
    advice = "install it beside Manent, or correct MANENT_PLUGINS and MANENT_ENGINE"
    try:
        loaded = load_plugins(settings.plugin_names)
    except PluginError as error:
        return failure("plugins", str(error), advice)
    if settings.engine not in (*OWN_ENGINES, *loaded.engines):
        return failure("plugins", f"no plugin brings the engine {settings.engine!r}", advice)
    return ok("plugins", ", ".join((*loaded.middleware, *loaded.engines)))
