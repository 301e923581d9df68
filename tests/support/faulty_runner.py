"""The real runner with a model that fails where it is told to, for tests of who notices.

It takes the place of the real one through ``python_with_runner``, a stand-in for the interpreter. The starter
model's tokens ``POISON`` and ``NAN`` are special ones that it never says; a prompt may hold them.
"""

from __future__ import annotations

from typing import Any

POISON = 5
"""An evaluation that sees it raises."""
NAN = 6
"""Behind it come no numbers."""


def break_model() -> None:
    """Make the class of the starter model fail on the two tokens."""
    import mlx.core as mx  # noqa: PLC0415 (only in the runner, behind its preloaded BLAS)
    from mlx_lm.models.llama import Model  # noqa: PLC0415 (as above)

    healthy = Model.__call__

    def faulty(self: Any, inputs: mx.array, cache: Any = None) -> mx.array:
        if mx.any(inputs == POISON).item():
            raise RuntimeError("cannot evaluate this")
        logits: mx.array = healthy(self, inputs, cache)
        return mx.where((inputs == NAN)[:, :, None], mx.nan, logits)

    Model.__call__ = faulty  # type: ignore[method-assign, assignment]  # in this process only


if __name__ == "__main__":
    from manent.adapters.inference import runner

    break_model()
    runner.main()
