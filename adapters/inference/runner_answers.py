"""What a runner's answers mean in the domain's words."""

from __future__ import annotations

from dataclasses import replace

from manent.adapters.inference.protocol import Failed, Finished, RunnerFacts, RunnerFrame
from manent.domain.errors import (
    ContextLengthExceeded,
    DomainError,
    EngineBusy,
    EngineUnavailable,
    GenerationFailed,
    InvalidValue,
)
from manent.domain.generation import GenerationResult, Provenance
from manent.domain.output import PartialOutput

_ERRORS: dict[str, type[DomainError]] = {
    error.code: error
    for error in (InvalidValue, ContextLengthExceeded, EngineBusy, GenerationFailed, EngineUnavailable)
}


def error_of(frame: RunnerFrame, *, param: str | None = None) -> DomainError:
    """What a runner's refusal means in the domain's words."""
    if isinstance(frame, Failed):
        return _ERRORS.get(frame.code, GenerationFailed)(frame.message, param=frame.param or param)
    return EngineUnavailable(f"the model's runner answered with an unexpected {type(frame).__name__} frame")


def result_of(finished: Finished, output: PartialOutput, facts: RunnerFacts) -> GenerationResult:
    """How a generation ended well: what was handed out, and how."""
    return GenerationResult(
        choices=output.choices_finished(finished.finish_reasons, finished.stop_sequences),
        usage=finished.usage,
        timings=finished.timings,
        provenance=replace(
            provenance_of(facts),
            batch_size_max=finished.batch_size_max,
            batch_sizes=finished.batch_sizes,
            cache=finished.cache,
            images=finished.images,
            draft=finished.draft,
        ),
    )


def provenance_of(facts: RunnerFacts) -> Provenance:
    """What generates, before it is known how."""
    return Provenance(
        weights_digest=facts.weights_digest,
        adapter_digest=facts.adapter_digest,
        tokenizer_digest=facts.tokenizer_digest,
        template_digest=facts.template_digest,
        versions=dict(facts.versions),
        device=facts.device,
        dtype=facts.dtype,
        quantization=facts.quantization,
    )
