"""Loading a sharded model in its runner, which is rank 0: the other processes are started, and all load their part."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from manent.adapters.inference.digests import DigestCache
from manent.adapters.inference.loading import LoadedModel, batch_arguments, facts_of, rules_of, warm_up
from manent.adapters.inference.model_facts import dtype_of
from manent.adapters.inference.model_folder import tokenizer_files, weight_files
from manent.adapters.inference.rendering import PromptRenderer
from manent.adapters.inference.shard_group import ShardGroup
from manent.adapters.inference.shard_hosts import ShardHosts
from manent.adapters.inference.sharding import ShardedBatch, check_divisible, load_shard


def load_sharded_model(folder: Path, config: dict[str, Any], *, digest_folder: Path, hosts: ShardHosts) -> LoadedModel:
    """Start the other processes, load this one's part, and warm up all of them; see ``load_model``.

    Raises:
        ModelFolderError: the model cannot be divided, or is not the same everywhere.
        EvaluationFailed: it cannot be evaluated.
        Exception: whatever the model's own code raises, or MLX where a host cannot be reached.
    """
    began_s = time.monotonic()
    shards = len(hosts.addresses)
    check_divisible(config, shards)
    others = ShardGroup(hosts, [f"--model={folder}", f"--digest-folder={digest_folder}"])
    digests = DigestCache(digest_folder)
    weights_digest = digests.digest_of_files([folder / "config.json", *weight_files(folder)])
    others.wait_until_there(weights_digest)
    group = others.join()
    model, tokenizer = load_shard(str(folder), group)
    tokenizer.encode("a", add_special_tokens=False)
    rules = rules_of(config, tokenizer)
    batch = ShardedBatch(model, group, others.tell, **batch_arguments(model, tokenizer, config, rules))
    warm_up(batch)
    facts = facts_of(
        config,
        tokenizer=tokenizer,
        dtype=dtype_of(model),
        weights_digest=weights_digest,
        tokenizer_digest=digests.digest_of_files(tokenizer_files(folder)),
        began_s=began_s,
    )
    facts = msgspec.structs.replace(facts, device=f"{facts.device}, {shards} shards", other_pids=others.pids)
    return LoadedModel(batch=batch, renderer=PromptRenderer(tokenizer, rules.grammars), facts=facts)
