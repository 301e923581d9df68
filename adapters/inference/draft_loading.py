"""Loading a draft model beside the model that it proposes tokens to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load

from manent.adapters.inference.architectures import mend
from manent.adapters.inference.digests import DigestCache
from manent.adapters.inference.drafting import DraftModel, can_be_cut
from manent.adapters.inference.model_folder import ModelFolderError, weight_files


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftFolder:
    """Where a draft model lies, found complete by ``check_model_folder``, and how many tokens it proposes at once."""

    folder: Path
    tokens: int


def load_draft(
    asked: DraftFolder, model: Any, tokenizer: Any, *, vocabulary_size: int, digests: DigestCache
) -> DraftModel:
    """Load a draft model, and see that it fits.

    Raises:
        ModelFolderError: its tokens are others, or tokens cannot be taken back from one of the two models.
        Exception: whatever the model's own code raises.
    """
    draft, its_tokenizer = load(str(asked.folder))[:2]
    if its_tokenizer.get_vocab() != tokenizer.get_vocab():
        raise ModelFolderError(
            f"the draft model in {asked.folder} has another tokenizer than the model; "
            "a draft must be a smaller model of the same family"
        )
    for each, name in ((model, "the model"), (draft, f"the draft model in {asked.folder}")):
        if not can_be_cut(each):
            raise ModelFolderError(
                f"no draft can be used: {name} keeps a state that tokens cannot be taken back from "
                "(sliding windows, recurrent layers); remove draft from its entry"
            )
    mend(draft)
    mx.eval(draft(mx.array([[0, 0]]), cache=make_prompt_cache(draft)))
    weights = [asked.folder / "config.json", *weight_files(asked.folder)]
    return DraftModel(
        model=draft,
        weights_digest=digests.digest_of_files(weights),
        tokens=asked.tokens,
        vocabulary_size=vocabulary_size,
    )
