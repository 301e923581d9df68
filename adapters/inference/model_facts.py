"""What is known of a loaded model whatever its type: versions, device, number formats; and digests meanwhile."""

from __future__ import annotations

import gc
import os
import platform
from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import version
from threading import Thread
from typing import Any, TypeVar

import mlx.core as mx
from mlx.utils import tree_flatten

from manent.adapters.inference.openblas import blas_of

_PACKAGES = ("manent", "mlx", "mlx-lm", "transformers", "tokenizers", "llguidance")

_T = TypeVar("_T")


def versions(*more: str) -> dict[str, str]:
    """What computes, by name: packages and, on a CPU, the BLAS with its threads, whose number moves the last bits."""
    found = {"python": platform.python_version(), **{package: _version(package) for package in (*_PACKAGES, *more)}}
    if on_cpu():
        found["blas"] = blas_of(os.environ)
    return found


def on_cpu() -> bool:
    """Whether MLX evaluates on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def device() -> str:
    """What MLX evaluates on."""
    if on_cpu():
        return f"cpu ({platform.machine()})"
    return f"gpu ({mx.device_info().get('device_name', 'unknown')})"


def device_bytes() -> int:
    """What MLX's allocator holds, with what it keeps for the next evaluation."""
    return mx.get_active_memory() + mx.get_cache_memory()


def dtype_of(model: Any) -> str:
    """The floating-point type that most parameters have, by bytes."""
    sizes: dict[str, int] = {}
    parameters: Any = tree_flatten(model.parameters())
    for _, array in parameters:
        if mx.issubdtype(array.dtype, mx.floating):
            name = str(array.dtype).removeprefix("mlx.core.")
            sizes[name] = sizes.get(name, 0) + array.nbytes
    return max(sizes, key=lambda name: sizes[name], default="unknown")


def quantization_of(config: dict[str, Any]) -> str | None:
    """How the weights are quantised, in words."""
    scheme = config.get("quantization") or config.get("quantization_config")
    if not isinstance(scheme, dict) or "bits" not in scheme:
        return None
    return f"{scheme.get('mode', 'affine')} {scheme['bits']}-bit, group {scheme.get('group_size')}"


def in_background(work: Callable[[], _T]) -> Future[_T]:
    """The result of work on a daemon thread, which does not keep a process alive that gives up loading."""
    future: Future[_T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 (handed over to whoever asks for the result)
            future.set_exception(error)

    Thread(target=run, name="digests", daemon=True).start()
    return future


def exempt_from_collection() -> None:
    """What the imports and the model made stays for good; a collection that walks through it stalls every stream."""
    gc.collect()
    gc.freeze()


def _version(package: str) -> str:
    try:
        return version(package)
    except ModuleNotFoundError:
        return "unknown"
