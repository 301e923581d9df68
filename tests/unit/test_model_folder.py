"""Model folders that are broken are explained before anything is loaded, and their digests follow their content."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from manent.adapters.inference.digests import DigestCache
from manent.adapters.inference.model_folder import ModelFolderError, check_model_folder

TENSOR_BYTES = 64


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A folder that has the shape of a model."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [16], "data_offsets": [0, TENSOR_BYTES]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(TENSOR_BYTES))
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    return tmp_path


def shorten(file: Path, by_bytes: int) -> None:
    """Cut a file off."""
    os.truncate(file, file.stat().st_size - by_bytes)


def index(folder: Path, text: str) -> None:
    """Give the folder an index of weight files."""
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")


BREAKS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "config cut off": (lambda f: shorten(f / "config.json", 1), "not valid JSON"),
    "config no object": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "config not text": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\xff"), "not valid JSON"),
    "no model type": (lambda f: (f / "config.json").write_text("{}"), "no model_type"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "weights cut off": (lambda f: shorten(f / "model.safetensors", 1), "cut off: it has .* bytes and should have"),
    "header cut off": (lambda f: os.truncate(f / "model.safetensors", 20), "cut off or not a safetensors file"),
    "weights empty": (lambda f: os.truncate(f / "model.safetensors", 0), "cut off or not a safetensors file"),
    "weights of another kind": (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "not a safetensors"),
    "part missing": (lambda f: index(f, '{"weight_map": {"w": "model-2.safetensors"}}'), "lacks 1 of 1 weight files"),
    "index broken": (lambda f: index(f, "{}"), "not an index"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "holds no tokenizer"),
}


@pytest.mark.parametrize(("break_it", "says"), BREAKS.values(), ids=BREAKS)
def test_what_is_wrong_is_said(model: Path, break_it: Callable[[Path], object], says: str) -> None:
    """Each kind of damage has its sentence, which names the folder."""
    assert check_model_folder(model) == {"model_type": "llama"}
    break_it(model)
    with pytest.raises(ModelFolderError, match=says) as caught:
        check_model_folder(model)
    assert str(model) in str(caught.value)


def test_a_missing_folder_is_said_to_be_missing(tmp_path: Path) -> None:
    """The message names the path that was looked at."""
    with pytest.raises(ModelFolderError, match=r"nowhere does not exist"):
        check_model_folder(tmp_path / "nowhere")


def test_a_digest_follows_names_and_contents(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Other content, or another name, is another digest; the order of the files does not matter."""
    cache = DigestCache(tmp_path_factory.mktemp("digests"))
    files = [model / "model.safetensors", model / "config.json"]
    first = cache.digest_of_files(files)
    assert cache.digest_of_files(files[::-1]) == first
    assert first.startswith("sha256:")
    files[0].rename(model / "renamed.safetensors")
    renamed = cache.digest_of_files([model / "renamed.safetensors", files[1]])
    (model / "config.json").write_text("{}", encoding="utf-8")
    assert len({first, renamed, cache.digest_of_files([model / "renamed.safetensors", files[1]])}) == 3


def test_a_file_is_hashed_once(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A remembered digest is used instead of the content: seen by remembering a false one."""
    folder = tmp_path_factory.mktemp("digests")
    file = model / "model.safetensors"
    honest = DigestCache(folder).sha256(file)
    (entry,) = folder.iterdir()
    entry.write_text(entry.read_text().replace(honest, "0" * 64))
    assert DigestCache(folder).sha256(file) == "0" * 64


def test_a_changed_file_is_hashed_again(model: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Also where size and modification time are made to look the same."""
    cache = DigestCache(tmp_path_factory.mktemp("digests"))
    file = model / "config.json"
    before, stat = cache.sha256(file), file.stat()
    file.write_text('{"model_type": "llamb"}', encoding="utf-8")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert file.stat().st_size == stat.st_size
    assert cache.sha256(file) != before


def test_a_cache_that_cannot_be_used_is_only_slow(model: Path) -> None:
    """A damaged entry is made anew, and a folder that cannot be written is done without."""
    file = model / "config.json"
    folder = model / "digests"
    honest = DigestCache(folder).sha256(file)
    (entry,) = folder.iterdir()
    entry.write_text("{")
    assert DigestCache(folder).sha256(file) == honest
    assert DigestCache(file / "not-a-folder").sha256(file) == honest
