"""models.toml: what it may say, and that every mistake in it is named with its place and its remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from manent.adapters.inference.registry import Registry, load_registry
from manent.adapters.inference.registry_entries import RegistryError
from manent.domain.errors import ModelNotFound

EXAMPLE = Path(__file__).parents[2] / "models.toml"


def load(folder: Path, text: str) -> Registry:
    """The registry of a file with this text."""
    file = folder / "models.toml"
    file.write_text(text, encoding="utf-8")
    return load_registry(file, folder / "models")


def put_model(folder: Path, name: str, config: object) -> Path:
    """A model's folder with nothing but a configuration."""
    model = folder / "models" / name
    model.mkdir(parents=True)
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


def test_without_a_file_there_is_the_starter_model(tmp_path: Path) -> None:
    """A fresh installation serves the starter model, also under the alias that `manent chat` asks for."""
    registry = load_registry(tmp_path / "none.toml", tmp_path / "models")
    (card,) = registry.cards()
    assert (card.model_id, card.aliases, card.available) == ("smollm2-135m-instruct", ("default",), False)
    assert registry.models[0].path == tmp_path / "models" / "smollm2-135m-instruct"


def test_the_example_in_the_repository_is_the_same_as_no_file(tmp_path: Path) -> None:
    """The commented example parses, and says what holds without it."""
    assert load_registry(EXAMPLE, tmp_path).models == load_registry(tmp_path / "none.toml", tmp_path).models


def test_a_full_entry_is_understood(tmp_path: Path) -> None:
    """Every key reaches the card."""
    registry = load(
        tmp_path,
        """
        [[models]]
        id = "org/big-model"
        path = "/somewhere/big"
        type = "llm"
        context_length = 4096
        aliases = ["big", "default"]
        [models.defaults]
        temperature = 0.5
        top_p = 0.9
        max_tokens = 100
        """,
    )
    (model,) = registry.models
    assert model.path == Path("/somewhere/big")
    assert registry.resolve("big") == registry.resolve("org/big-model") == model.card
    assert (model.card.context_length, model.card.default_temperature) == (4096, 0.5)
    assert (model.card.default_top_p, model.card.default_max_tokens) == (0.9, 100)


def test_paths_are_relative_to_the_models_folder_and_default_to_the_id(tmp_path: Path) -> None:
    """A model that lies where it is expected needs no path."""
    registry = load(
        tmp_path, '[[models]]\nid = "a"\n[[models]]\nid = "b"\npath = "x/y"\n[[models]]\nid = "c"\npath = "~/m"\n'
    )
    paths = [model.path for model in registry.models]
    assert paths == [tmp_path / "models/a", tmp_path / "models/x/y", Path.home() / "m"]


@pytest.mark.parametrize(
    "config", [{"max_position_embeddings": 777}, {"text_config": {"max_position_embeddings": 777}}]
)
def test_the_context_length_comes_from_the_models_configuration(tmp_path: Path, config: object) -> None:
    """What the model was made for holds, unless models.toml says otherwise."""
    put_model(tmp_path, "a", config)
    assert load(tmp_path, '[[models]]\nid = "a"').resolve("a").context_length == 777
    assert load(tmp_path, '[[models]]\nid = "a"\ncontext_length = 5').resolve("a").context_length == 5


def test_an_embedding_model_takes_what_it_was_trained_on(tmp_path: Path) -> None:
    """Its longest input is what sentence-transformers says, which is often less than there are positions for."""
    model = put_model(tmp_path, "a", {"max_position_embeddings": 512})
    card = load(tmp_path, '[[models]]\nid = "a"\ntype = "embedding"').resolve("a")
    assert (card.type, card.context_length) == ("embedding", 512)
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 256}', encoding="utf-8")
    assert load(tmp_path, '[[models]]\nid = "a"\ntype = "embedding"').resolve("a").context_length == 256
    assert load(tmp_path, '[[models]]\nid = "a"').resolve("a").context_length == 512


def test_availability_is_looked_up_when_it_is_asked_for(tmp_path: Path) -> None:
    """A model that is downloaded while the server runs becomes available."""
    registry = load(tmp_path, '[[models]]\nid = "a"')
    assert not registry.resolve("a").available
    put_model(tmp_path, "a", {})
    assert registry.resolve("a").available
    assert registry.cards()[0].available


def test_a_broken_model_keeps_its_card(tmp_path: Path) -> None:
    """Broken configurations are explained when the model is loaded, and do not stop the server."""
    (put_model(tmp_path, "a", {}) / "config.json").write_text("{", encoding="utf-8")
    assert load(tmp_path, '[[models]]\nid = "a"').resolve("a").model_id == "a"


def test_an_unknown_model_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    """A typing error is easy to see in the message."""
    registry = load(tmp_path, '[[models]]\nid = "qwen3-4b"\naliases = ["fast"]')
    with pytest.raises(ModelNotFound, match="did you mean 'qwen3-4b'") as caught:
        registry.resolve("qwen-4b")
    assert caught.value.code == "model_not_found"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[[models]]\nid = a", r"not valid TOML: .*line 2"),
        ("", "names no models"),
        ('[models]\nid = "a"', r"write \[\[models\]\]"),
        ("models = 3", r"write \[\[models\]\]"),
        ("models = [3]", r"\$\.models\[0\]"),
        ('[[model]]\nid = "a"', "unknown key 'model'; did you mean 'models'"),
        ('[[models]]\npath = "a"', "missing required field `id` - at `\\$.models\\[0\\]`"),
        (
            '[[models]]\nid = "a"\nalias = ["b"]',
            r"models\[0\] \(a\) has an unknown key 'alias'; did you mean 'aliases'",
        ),
        ('[[models]]\nid = "a"\nzzz = 1', "known keys are id, path, type"),
        (
            '[[models]]\nid = "a"\n[models.defaults]\ntemprature = 1',
            "defaults has an unknown key 'temprature'; did you",
        ),
        ('[[models]]\nid = "a"\ntype = "x"', "type 'x'; this version serves types 'llm', 'vlm', 'embedding'"),
        ('[[models]]\nid = "a"\ntype = "vlm"\nadapter = "b"', "only models of type 'llm' can have it"),
        ('[[models]]\nid = "a"\ntype = "embedding"\nadapter = "x"', "has adapter, which only models for chats have"),
        ('models = [{id="a", fallback=["b"]}, {id="b", type="embedding"}]', "fallback 'b' of 'a' is of another type"),
        ('[[models]]\nid = "a b"', r"at `\$.models\[0\].id`"),
        ('[[models]]\nid = ""', r"at `\$.models\[0\].id`"),
        ('[[models]]\nid = "a"\ncontext_length = 0', r"at `\$.models\[0\].context_length`"),
        ('[[models]]\nid = "a"\ncontext_length = "8k"', r"at `\$.models\[0\].context_length`"),
        ('[[models]]\nid = "a"\n[models.defaults]\ntemperature = 3', r"at `\$.models\[0\].defaults.temperature`"),
        ('[[models]]\nid = "a"\n[models.defaults]\ntop_p = 0', r"at `\$.models\[0\].defaults.top_p`"),
        ('[[models]]\nid = "a"\n[[models]]\nid = "a"', "'a' is given twice, by 'a' and 'a'"),
        ('[[models]]\nid = "a"\n[[models]]\nid = "b"\naliases = ["a"]', "'a' is given twice, by 'a' and 'b'"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, says: str) -> None:
    """The message holds the file, the place, and what would be right."""
    with pytest.raises(RegistryError, match=says) as caught:
        load(tmp_path, text)
    assert str(tmp_path / "models.toml") in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """A folder in its place, or bytes that are no text."""
    with pytest.raises(RegistryError, match="cannot be read"):
        load_registry(tmp_path, tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(RegistryError, match="not UTF-8"):
        load_registry(tmp_path / "latin.toml", tmp_path)


def test_what_keeps_a_model_in_memory_is_understood(tmp_path: Path) -> None:
    """Memory in GB of 10⁹ bytes, the rest as it is named; without them, nothing is set aside and nothing loaded."""
    registry = load(
        tmp_path,
        """
        [[models]]
        id = "a"
        memory_gb = 1.5
        auto_load = true
        pin = true
        idle_timeout_s = 300
        fallback = ["second"]
        adapter = "adapters/a"
        [[models]]
        id = "b"
        aliases = ["second"]
        """,
    )
    a, b = registry.models
    assert (a.memory_bytes, a.auto_load, a.pinned, a.idle_timeout_s) == (1_500_000_000, True, True, 300.0)
    assert (a.fallback, a.adapter) == (("second",), tmp_path / "models/adapters/a")
    assert (b.memory_bytes, b.auto_load, b.pinned, b.idle_timeout_s, b.fallback, b.adapter) == (
        *(None, False, False, None, ()),
        None,
    )


def test_fallbacks_are_followed_in_breadth_and_each_once(tmp_path: Path) -> None:
    """Those of the model first, then theirs; two ways to one model are no circle."""
    registry = load(
        tmp_path,
        """
        models = [
          { id = "a", fallback = ["b", "c"] }, { id = "b", fallback = ["d"] }, { id = "c", fallback = ["d"] },
          { id = "d" },
        ]
        """,
    )
    assert registry.chain("a") == ("a", "b", "c", "d")
    assert registry.chain("d") == ("d",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[[models]]\nid = "a"\nfallback = ["qwen"]', "the fallback 'qwen' of 'a' is no model"),
        ('[[models]]\nid = "a"\nfallback = ["a"]', "fallbacks go in a circle: a -> a"),
        ('[[models]]\nid = "a"\ndraft = "b"', "'a' has the draft 'b', which is no model"),
        ('[[models]]\nid = "a"\ndraft = "a"', "'a' is its own draft; name a smaller model"),
        ('[[models]]\nid = "a"\ndraft_tokens = 2', "'a' has draft_tokens and no draft"),
        ('[[models]]\nid = "a"\ndraft = "b"\n[[models]]\nid = "b"\ntype = "vlm"', "must be of type 'llm'"),
        ('[[models]]\nid = "a"\nshards = 0', r"at `\$.models\[0\].shards`"),
        ('[[models]]\nid = "a"\nshards = 2\nadapter = "x"', "'a' has shards or hosts and adapter, which do not go"),
        ('[[models]]\nid = "a"\ntype = "vlm"\nshards = 2', "has shards; only models of type 'llm' can have it"),
        (
            'models = [{id="a", fallback=["b"]}, {id="b", aliases=["x"], fallback=["c"]}, {id="c", fallback=["x"]}]',
            "fallbacks go in a circle: b -> c -> b",
        ),
        ('[[models]]\nid = "memory"', "the id 'memory' is taken by /v1/models/memory"),
        ('[[models]]\nid = "a"\nmemory_gb = 0', r"at `\$.models\[0\].memory_gb`"),
        ('[[models]]\nid = "a"\nidle_timeout_s = -1', r"at `\$.models\[0\].idle_timeout_s`"),
        ('[[models]]\nid = "a"\npin = 1', r"at `\$.models\[0\].pin`"),
    ],
)
def test_mistakes_about_memory_and_fallbacks_are_named(tmp_path: Path, text: str, says: str) -> None:
    """As all mistakes are: the place, and what would be right."""
    with pytest.raises(RegistryError, match=says):
        load(tmp_path, text)
