"""The card's metadata block: what hubs search by and show results from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from job.card.facts import CardFacts, hub_name, is_hub_id
from job.evaluation.measures import LABELS

if TYPE_CHECKING:
    from huggingface_hub import EvalResult


def metadata(facts: CardFacts, *, merged: bool = False) -> str:
    """The YAML between the card's `---` lines, written by the hub's own client. That of merged
    weights has no results: they are the adapter's.

    Data sets are not named: those of a run are files in storage, which no hub knows.
    """
    from huggingface_hub import ModelCardData

    base_model, _ = hub_name(facts.base_model, facts.revision)
    on_a_hub = is_hub_id(base_model)
    licence = facts.licence
    block = ModelCardData(
        base_model=base_model if on_a_hub else None,
        base_model_relation=("finetune" if merged else "adapter") if on_a_hub else None,
        library_name="transformers" if merged else "peft",
        license=licence.id if licence else None,
        license_name=licence.name if licence else None,
        license_link=licence.link if licence else None,
        pipeline_tag="text-generation",
        tags=["lora", "qlora", "tool-calling", "forge-job"],
        model_name=facts.name,
        eval_results=None if merged else list(_results(facts.evaluation)) or None,
    )
    return str(block.to_yaml())


def _results(evaluation: Mapping[str, Any] | None) -> Iterator[EvalResult]:
    from huggingface_hub import EvalResult

    for measure, label in LABELS.items():
        result = evaluation["adapter"].get(measure) if evaluation else None
        if result:
            yield EvalResult(
                task_type="text-generation",
                task_name="Tool calling",
                dataset_type="held-out",
                dataset_name="Held-out rows of the run's own data",
                dataset_split="held-out",
                metric_type=measure,
                metric_name=label,
                metric_value=round(float(result["rate"]), 6),
                metric_args={
                    "low": round(float(result["low"]), 6),
                    "high": round(float(result["high"]), 6),
                    "confidence": 0.95,
                },
            )
