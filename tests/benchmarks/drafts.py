"""Whether a draft model pays here: one stream with it and without, in turns, in this process.

The starter model has no smaller sister, so the drafts are made of it: itself in 4 bits, and its first 15 layers. To see
what a draft gives at best, it is also the draft of a model four times as deep that says the same: its layers add
nothing.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_map
from mlx_lm.utils import load

from manent.adapters.inference.drafted_batch import DraftedBatch
from manent.adapters.inference.drafting import DraftModel
from manent.adapters.inference.loading import batch_arguments, rules_of
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_folder import read_config
from manent.adapters.inference.protocol import Finished, Generate
from manent.domain.drafting import DraftUse
from tests.support.sampling import parameters

PROMPT = "Explain in simple words how a steam engine works, and why it changed the world."
DEEPER = 4


class AlwaysDraft:
    """A pace that never rests: what is measured is the draft, and not whether it is used."""

    def __init__(self, tokens: int) -> None:
        self.proposals = tokens

    def took(self, *_: object, **__: object) -> None:
        """Nothing is learnt."""


def compare(folder: Path, *, tokens: int, rounds: int) -> None:
    """Measure each pair of a model and a draft."""
    config = read_config(folder)
    model, tokenizer = load(str(folder))[:2]
    render: Any = tokenizer.apply_chat_template
    prompt = render([{"role": "user", "content": PROMPT}], add_generation_prompt=True)
    pairs: list[tuple[str, Any, Callable[[], Any]]] = [
        ("itself in 4 bits", model, lambda: _quantized(folder)),
        ("its first 15 layers", model, lambda: _cut(folder, 15)),
        (f"itself, for a model {DEEPER} times as deep", _deeper(folder, model), lambda: model),
    ]
    for name, target, make in pairs:
        draft, rest = make(), batch_arguments(target, tokenizer, config, rules_of(config, tokenizer))
        plain = TextBatch(target, **rest)
        for count in (1, 3):
            drafted = _drafted(target, draft, count, rest, config)
            found = [(_seconds(plain, prompt, tokens), _seconds(drafted, prompt, tokens)) for _ in range(rounds)]
            ratio = statistics.median(without[0] / with_it[0] for without, with_it in found)
            use = found[0][1][2]
            share = use.accepted_tokens / max(use.proposed_tokens, 1) if use is not None else 0.0
            same = all(without[1] == with_it[1] for without, with_it in found)
            sys.stdout.write(
                f"  {name}, {count} at once: {ratio:.2f} times as fast, {share:.0%} of proposals chosen, "
                f"{'the same tokens' if same else 'OTHER TOKENS'}\n"
            )


def _drafted(target: Any, draft: Any, count: int, rest: dict[str, Any], config: dict[str, Any]) -> DraftedBatch:
    asked = DraftModel(model=draft, weights_digest="", tokens=count, vocabulary_size=config["vocab_size"])
    return DraftedBatch(target, asked, pace=AlwaysDraft(count), **rest)


def _seconds(batch: TextBatch, prompt: list[int], tokens: int) -> tuple[float, list[int], DraftUse | None]:
    """How long the tokens behind the first one take, which they are, and what the draft did."""
    asked = Generate(id=1, token_ids=tuple(prompt), parameters=parameters(max_tokens=tokens))
    batch.add(asked, received_s=time.monotonic())
    frames: list[Any] = []
    while batch.active:
        frames += batch.step()
    (finished,) = (frame for frame in frames if isinstance(frame, Finished))
    said = [token for frame in frames if not isinstance(frame, Finished) for token in getattr(frame, "token_ids", ())]
    return finished.timings.decode_s, said, finished.draft


def _quantized(folder: Path) -> Any:
    model = load(str(folder))[0]
    nn.quantize(model, group_size=32, bits=4)
    mx.eval(model.parameters())
    return model


def _cut(folder: Path, layers: int) -> Any:
    model: Any = load(str(folder))[0]
    model.model.layers = model.model.layers[:layers]
    return model


def _deeper(folder: Path, model: Any) -> Any:
    """The model with layers behind its own whose contributions are zero."""
    deeper: Any = load(str(folder))[0]
    own = len(model.model.layers)
    for number in range(own, DEEPER * own):
        layer: Any = load(str(folder), lazy=True)[0].model.layers[number % own]
        for part in (layer.self_attn.o_proj, layer.mlp.down_proj):
            part.update(tree_map(mx.zeros_like, part.parameters()))
        mx.eval(layer.parameters())
        deeper.model.layers.append(layer)
    return deeper
