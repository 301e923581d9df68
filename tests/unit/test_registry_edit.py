"""Changing models.toml: what its author wrote stays, and a wrong change is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.registry import load_registry
from manent.adapters.inference.registry_edit import add_model, set_pin
from manent.adapters.inference.registry_entries import RegistryError

WRITTEN = """# ours
[[models]]
id = "a"   # the first
aliases = ["default"]
pin = false # for now
[models.defaults]
top_p = 0.9

[[ models ]] # the second
id = "b"
[models.defaults]
temperature = 0.0
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A registry with comments."""
    (tmp_path / "models.toml").write_text(WRITTEN, encoding="utf-8")
    return tmp_path / "models.toml"


def model_at(folder: Path) -> Path:
    """A folder in which everything is there that is looked at."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}), encoding="utf-8")
    header = json.dumps({"x": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_pin_changes_one_word_or_adds_one_line(file: Path, tmp_path: Path) -> None:
    """Everything else stands as it was written, comments included."""
    set_pin(file, tmp_path, model_id="a", pinned=True)
    assert file.read_text() == WRITTEN.replace("pin = false # for now", "pin = true # for now")
    set_pin(file, tmp_path, model_id="a", pinned=False)
    set_pin(file, tmp_path, model_id="b", pinned=True)
    assert file.read_text() == WRITTEN.replace("# the second\n", "# the second\npin = true\n")
    assert [model.pinned for model in load_registry(file, tmp_path).models] == [False, True]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('models = [{ id = "a" }]', "set pin by hand"),
        ('[[models]]\nid = "a"\ncontext_length = "x"', "context_length"),
        ('[[models]]\nid = "b"', "has no model 'a'"),
        ("[[models", "not valid TOML"),
    ],
)
def test_what_cannot_be_changed_safely_stands_as_it_was(file: Path, tmp_path: Path, text: str, says: str) -> None:
    """The reason is named; no half of a change, no other file."""
    file.write_text(text, encoding="utf-8")
    with pytest.raises(RegistryError, match=says):
        set_pin(file, tmp_path, model_id="a", pinned=True)
    assert file.read_text() == text
    assert [found.name for found in tmp_path.iterdir()] == ["models.toml"]


def test_a_model_is_added_at_the_end(file: Path, tmp_path: Path) -> None:
    """Below the models' folder its path is short, elsewhere whole; names may hold what TOML escapes."""
    add_model(file, tmp_path / "models", path=model_at(tmp_path / "models" / "c"), model_id="c")
    odd = model_at(tmp_path / 'an "odd" \\ place')
    add_model(file, tmp_path / "models", path=odd, model_id="org/d", aliases=["fast", "small"])
    text = file.read_text()
    assert text.startswith(WRITTEN)
    assert 'path = "c"' in text
    *_, c, d = load_registry(file, tmp_path / "models").models
    assert (c.path, d.path, d.card.aliases) == (tmp_path / "models/c", odd, ("fast", "small"))


def test_what_a_model_is_for_and_its_adapter_are_written_down(file: Path, tmp_path: Path) -> None:
    """A BERT makes embeddings; an adapter's folder is looked at before it is named."""
    bert, llm, adapter = model_at(tmp_path / "bert"), model_at(tmp_path / "llm"), tmp_path / "models" / "adapter"
    (bert / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"adapter_config\.json is missing"):
        add_model(file, tmp_path / "models", path=llm, model_id="llm", adapter=adapter)
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapters.safetensors").write_bytes((llm / "model.safetensors").read_bytes())
    add_model(file, tmp_path / "models", path=llm, model_id="llm", adapter=adapter)
    add_model(file, tmp_path / "models", path=bert, model_id="bert")
    with pytest.raises(RegistryError, match="only models for chats have"):
        add_model(file, tmp_path / "models", path=bert, model_id="other", adapter=adapter)
    *_, first, second = load_registry(file, tmp_path / "models").models
    assert (first.card.type, first.adapter, second.card.type) == ("llm", adapter, "embedding")


def test_the_first_entry_does_not_take_the_starter_model_away(tmp_path: Path) -> None:
    """Without a file there is the starter model; the file that is made says so."""
    file = tmp_path / "models.toml"
    add_model(file, tmp_path, path=model_at(tmp_path / "c"), model_id="c")
    assert [model.card.model_id for model in load_registry(file, tmp_path).models] == ["smollm2-135m-instruct", "c"]
    assert load_registry(file, tmp_path).resolve("default").model_id == "smollm2-135m-instruct"


def test_nothing_is_added_that_would_not_be_read(file: Path, tmp_path: Path) -> None:
    """A taken name, a name that is none, a folder without a model: the file stands as it was."""
    folder = model_at(tmp_path / "c")
    with pytest.raises(RegistryError, match="'a' is given twice"):
        add_model(file, tmp_path, path=folder, model_id="a")
    with pytest.raises(RegistryError, match="id"):
        add_model(file, tmp_path, path=folder, model_id="a b")
    with pytest.raises(ModelFolderError, match="does not exist"):
        add_model(file, tmp_path, path=tmp_path / "none", model_id="d")
    assert file.read_text() == WRITTEN


def test_a_file_that_is_a_link_stays_one(file: Path, tmp_path: Path) -> None:
    """Whoever keeps the file elsewhere finds the change there, with the rights that it had."""
    link = tmp_path / "link.toml"
    link.symlink_to(file)
    file.chmod(0o640)
    set_pin(link, tmp_path, model_id="a", pinned=True)
    assert link.is_symlink()
    assert "pin = true # for now" in file.read_text()
    assert file.stat().st_mode & 0o777 == 0o640
