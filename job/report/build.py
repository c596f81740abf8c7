"""Puts together what is known of a run, and writes it down three ways."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from statistics import median
from typing import Any, Final

import orjson

from job.ledger import RunRecord, gpu_hours, held_seconds, spans
from job.plots import not_finite
from job.redact import Redactor
from job.report.page import render

SCHEMA_VERSION: Final = 1


def build(
    record: RunRecord,
    history: Sequence[Mapping[str, Any]],
    data_report: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    gpu_hour_price: float | None,
    samples: Sequence[Mapping[str, Any]] = (),
) -> dict[str, bytes]:
    """`report.json`, `metrics.jsonl` and `report.html` by name.

    `history` is the trainer's log (`step`, `loss`, `eval_loss`, …), `gpu_hour_price` money an
    hour, `samples` conversations for the page (`DataReport.samples`). Secrets are masked; NaN
    becomes null. Raises nothing for what a run may leave out.
    """
    document = _document(record, history, data_report, evaluation, gpu_hour_price)
    document = Redactor(os.environ).plain(document)
    return {
        "report.json": orjson.dumps(
            document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE
        ),
        "metrics.jsonl": b"".join(_line(entry) for entry in history),
        "report.html": render(document, history, samples, record.resumed_at).encode(),
    }


def _line(entry: Mapping[str, Any]) -> bytes:
    return orjson.dumps(
        dict(entry), default=str, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SERIALIZE_NUMPY
    )


def _document(
    record: RunRecord,
    history: Sequence[Mapping[str, Any]],
    data_report: Mapping[str, Any],
    evaluation: Mapping[str, Any] | None,
    gpu_hour_price: float | None,
) -> dict[str, Any]:
    facts = record.model_dump(mode="json", exclude={"attempts"})
    return {
        **facts,
        "schema_version": SCHEMA_VERSION,
        "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "attempts": [
            {
                **span.attempt.model_dump(mode="json"),
                "seconds": round(span.seconds, 1),
                "seconds_at_least": span.at_least,
                "lost_at_least": span.lost_at_least,
            }
            for span in spans(record)
        ],
        "training": _training(record, history),
        "data": dict(data_report),
        "evaluation": None if evaluation is None else dict(evaluation),
        "cost": _cost(record, gpu_hour_price, _step_seconds(history)),
    }


def _training(record: RunRecord, history: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    losses, wrong = _finite(history, "loss"), not_finite(history, "loss")
    validation = _finite(history, "eval_loss")
    since = max((a.from_step for a in record.attempts if a.validation_changed), default=-1)
    of_the_same = [entry for entry in validation if entry["step"] > since]
    best = min(of_the_same, key=lambda entry: entry["loss"], default=None)
    return {
        "first": losses[0] if losses else None,
        "last": losses[-1] if losses else None,
        "best_validation": best,
        "last_validation": validation[-1] if validation else None,
        "step_seconds": _step_seconds(history),
        "logged_not_finite": len(wrong),
        "first_not_finite": {"step": wrong[0][0], "loss": str(wrong[0][1])} if wrong else None,
    }


def _finite(history: Sequence[Mapping[str, Any]], name: str) -> list[dict[str, float]]:
    return [
        {"step": entry.get("step", 0), "loss": float(entry[name])}
        for entry in history
        if name in entry and math.isfinite(entry[name])
    ]


def _step_seconds(history: Sequence[Mapping[str, Any]]) -> float | None:
    """Median of the optimizer steps, where the log has it."""
    known = [entry["step_seconds"] for entry in history if entry.get("step_seconds")]
    return round(median(known), 4) if known else None


def _cost(
    record: RunRecord, gpu_hour_price: float | None, step_seconds: float | None
) -> dict[str, Any]:
    """`wasted_hours`, by the clock, went into steps that were trained twice, after a kill or a
    preemption; killed attempts may have lost more steps than their heartbeats had told of
    (`wasted_at_least`). Each GPU of an attempt is paid for all of its time; `gpus` had the last
    one. A run on a CPU has no GPU to pay for."""
    hours, gpus = gpu_hours(record), record.gpus_of(record.current) if record.attempts else 0
    priced = gpu_hour_price if gpus else None
    lost_steps = sum(attempt.lost_steps for attempt in record.attempts)
    seconds = 0.0 if not lost_steps else step_seconds
    wasted = None if seconds is None else lost_steps * seconds / 3600
    wasted_gpu_hours = None if seconds is None else _lost_gpu_steps(record) * seconds / 3600
    return {
        "gpus": gpus,
        "gpu_hours": round(hours, 4),
        "held_hours": round(held_seconds(record) / 3600, 4),
        "at_least": any(span.at_least for span in spans(record)),
        "price_per_gpu_hour": gpu_hour_price,
        "amount": None if priced is None else round(hours * priced, 4),
        "wasted_steps": lost_steps,
        "wasted_at_least": any(span.lost_at_least for span in spans(record)),
        "wasted_hours": None if wasted is None else round(wasted, 4),
        "wasted_amount": None
        if priced is None or wasted_gpu_hours is None
        else round(wasted_gpu_hours * priced, 4),
    }


def _lost_gpu_steps(record: RunRecord) -> int:
    """Steps that were lost, each counted for every GPU of the attempt that had made it."""
    return sum(
        after.lost_steps * record.processes_of(before)
        for before, after in pairwise(record.attempts)
    )
