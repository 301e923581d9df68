"""Tensor parallelism: one model in several processes, each with a part of every layer; rank 0 is the runner.

The others repeat what rank 0 does with its batch, and are given the tokens that it chooses, within the evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load

from manent.adapters.inference.architectures import mend
from manent.adapters.inference.batch_entry import BatchSequence
from manent.adapters.inference.joining import JoiningGenerator
from manent.adapters.inference.mlx_text import TextBatch
from manent.adapters.inference.model_folder import ModelFolderError
from manent.adapters.inference.prefix_reuse import Warm
from manent.adapters.inference.protocol import RunnerFrame
from manent.adapters.inference.shard_frames import Insert, Remove, ShardFrame, Step
from manent.adapters.inference.shard_group import end_all

Tell = Callable[[ShardFrame], None]
_DIVIDED = ("num_attention_heads", "num_key_value_heads", "intermediate_size")


def check_divisible(config: dict[str, Any], shards: int) -> None:
    """See that what is divided can be.

    Raises:
        ModelFolderError: it cannot.
    """
    for key in _DIVIDED:
        value = config.get(key)
        if isinstance(value, int) and value % shards:
            fitting = [str(n) for n in range(2, 17) if all(_divides(n, config.get(name)) for name in _DIVIDED)]
            hint = f"; {' or '.join(fitting)} would do" if fitting else ""
            raise ModelFolderError(f"the model cannot be in {shards} shards: its {key} is {value}{hint}")


def load_shard(folder: str, group: mx.distributed.Group) -> tuple[Any, Any]:
    """This process's part of a model, and the tokenizer; returns once all processes have theirs.

    Raises:
        ModelFolderError: mlx-lm cannot divide models of this architecture.
        Exception: whatever the model's own code raises.
    """
    model, tokenizer = load(folder, lazy=True)[:2]
    shard = getattr(model, "shard", None)
    if shard is None:
        architecture = type(model).__module__.rpartition(".")[2]
        raise ModelFolderError(f"mlx-lm divides no models of the architecture {architecture}; remove shards")
    shard(group)
    mend(model)
    mx.eval(model.parameters())
    mx.eval(mx.distributed.all_sum(mx.array(1.0), group=group))
    return model, tokenizer


class ShardGenerator(JoiningGenerator):
    """A batch that all ranks evaluate together; what rank 0 chooses, all go on with."""

    def __init__(self, model: Any, group: mx.distributed.Group, tell: Tell | None, **limits: Any) -> None:
        super().__init__(model, **limits)
        self._group = group
        self._tell = tell

    def remove(self, uids: list[int], return_prompt_caches: bool = False) -> Any:  # noqa: FBT001, FBT002 (mlx-lm's)
        """See mlx-lm."""
        if self._tell is not None and uids:
            self._tell(Remove(uids))
        return super().remove(uids, return_prompt_caches)  # type: ignore[no-untyped-call]  # mlx-lm is partly typed

    def extract_cache(self, uids: list[int]) -> Any:
        """Not there: it is a part of a state, and the choices of a request evaluate its prompt each for itself."""
        raise NotImplementedError(f"the caches of {uids} are in several processes")

    def _next(self) -> tuple[list[Any], list[Any]]:
        if self._tell is not None:
            self._tell(Step(self.prefill_step_size))
        prompts, tokens = super()._next()
        batch = self._generation_batch
        if len(batch):
            batch._next_tokens = self._agreed(batch._next_tokens)  # noqa: SLF001 (mlx-lm's version is pinned)
        return prompts, tokens

    def _agreed(self, chosen: mx.array) -> mx.array:
        """Rank 0's tokens, everywhere; they depend on what each rank evaluated, and so come after it."""
        mine = chosen if self._group.rank() == 0 else chosen * 0
        agreed = mx.distributed.all_sum(mine, group=self._group)
        mx.async_eval(agreed)  # type: ignore[no-untyped-call]  # MLX's stubs lack it
        return agreed


class ShardedBatch(TextBatch):
    """The sequences of rank 0. There is no prefix cache. A failed evaluation ends the process: others wait in it."""

    def __init__(self, model: Any, group: mx.distributed.Group, tell: Tell, **text_batch: Any) -> None:
        self._group = group
        self._tell = tell
        super().__init__(model, **text_batch)

    def _insert(self, sequence: BatchSequence, warm: Warm) -> None:
        left = sequence.entry.request.parameters.max_tokens - len(sequence.tokens)
        stops = sorted(sequence.entry.stop_token_ids)
        self._tell(Insert([list(segment) for segment in warm.segments], left, stops))
        super()._insert(sequence, warm)

    def _evaluation_failed(self, error: Exception) -> list[RunnerFrame]:
        end_all(f"an evaluation of a sharded model failed: {type(error).__name__}: {error}")

    def _new_generator(self) -> Any:
        generator = ShardGenerator(self._model, self._group, self._tell, **self._limits.of_mlx_lm)
        self.prefixes.keeper.attach(generator)
        return generator


def _divides(shards: int, value: object) -> bool:
    return not isinstance(value, int) or value % shards == 0
