"""The last stage: adapter, exports, report, and the end recorded, in this order."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from job import publish
from job.card import CardFacts
from job.checkpoint import Change
from job.config import Settings
from job.dataset import PreparedData
from job.engines import LoadedModel
from job.errors import GateFailed, Problem
from job.exports import ExportContext
from job.exports import make as make_exports
from job.ledger import Adapter, Export, RunRecord, now
from job.model import BaseModel
from job.plots import loss_curve_svg
from job.promotion import promote, wants_promotion
from job.promotion.gate import PASSED, gate_of
from job.publish import provenance
from job.report import build as build_report
from job.stages.closing import recorded_progress
from job.stages.context import Run
from job.stages.report import send_report
from job.stages.tidy import tidy
from job.stages.training import Trained
from job.storage import Patience, open_storage

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Verdict:
    """What the gate says of an evaluation."""

    failure: str | None
    """Why it failed; None where it passed or isn't set."""
    passed: str
    """What the record says of the gate where it did not fail."""
    basis: str
    """On how many turns it rests, in brackets; empty where nobody says."""

    @classmethod
    def of(cls, settings: Settings, evaluation: dict[str, Any] | None) -> _Verdict:
        gate = gate_of(settings)
        passed = PASSED if gate.is_set else "not set"
        return cls(gate.verdict(evaluation), passed, gate.basis(evaluation))

    @property
    def recorded(self) -> dict[str, str]:
        """As `results` of the record has it."""
        basis = {"gate_basis": self.basis.strip(" ()")} if self.basis else {}
        return {"gate": self.failure or self.passed, **basis}

    @property
    def on_card(self) -> str:
        return self.failure or self.passed + self.basis


def publish_adapter(
    run: Run,
    model: BaseModel,
    loaded: LoadedModel,
    data: PreparedData,
    trained: Trained,
    evaluation: dict[str, Any] | None,
) -> RunRecord:
    """Upload and verify the adapter, make the exports, write the report, record the end: in this
    order.

    Raises `GateFailed` once the candidate is recorded.
    """
    verdict = _Verdict.of(run.settings, evaluation)
    folder = run.own_dir / "adapter"
    facts = _card_facts(run, model, data, trained, evaluation, verdict.on_card)
    publish.save_adapter(loaded.model, loaded.tokenizer, facts, folder)
    _seal(run, data, folder)
    patiently = run.patience()
    adapter = patiently(
        publish.publish,
        run.storage,
        run.ledger,
        folder,
        step=trained.step,
        promoted=verdict.failure is None,
        scratch=run.own_dir / "verify",
    )
    context = _export_context(run, model, trained, patiently, folder, facts)
    made = {} if verdict.failure else make_exports(context)
    end = _end_of_run(run, adapter, verdict, evaluation, made)
    _report(run, patiently, end, data, trained, evaluation)
    record = _conclude(run, patiently, end, folder)
    if verdict.failure:
        where = f"the candidate is at {run.storage.uri}/{adapter.key}"
        raise GateFailed(Problem("promotion gate", verdict.failure, where))
    return record


def _end_of_run(
    run: Run,
    adapter: Adapter,
    verdict: _Verdict,
    evaluation: dict[str, Any] | None,
    made: Mapping[str, Export],
) -> Change:
    """The change of the record that finishes the run."""
    exports = {"exports": {name: found.place for name, found in made.items()}} if made else {}

    def finish(record: RunRecord) -> None:
        record.status = "gate_failed" if verdict.failure else "succeeded"
        record.adapter = adapter
        record.promotion_settled = False  # of an adapter that is published anew, once more
        record.results = {"evaluation": _figures(evaluation), **verdict.recorded, **exports}
        record.progress = recorded_progress(run.metrics, run.ledger)
        record.progress.phase = "finished"
        record.current.ended_at = now()
        record.current.to_step = record.progress.step
        record.current.exit_code = GateFailed.exit_code if verdict.failure else 0
        record.current.reason = verdict.failure or "finished"

    return finish


def _report(
    run: Run,
    patiently: Patience,
    end: Change,
    data: PreparedData,
    trained: Trained,
    evaluation: dict[str, Any] | None,
) -> None:
    """Of the record as it will be: the run is finished only once its report is stored."""
    record = run.ledger.record.model_copy(deep=True)
    end(record)
    price, found = run.settings.gpu_hour_price, data.report
    report = build_report(
        record, trained.history, found.as_dict(), evaluation, price, samples=found.samples
    )
    send_report(run, patiently, report)


def _conclude(run: Run, patiently: Patience, end: Change, folder: Path) -> RunRecord:
    """Record the end, promote, tidy: a signal comes too late for any of it."""
    settings = run.settings
    with run.stop.deferred():
        record = patiently(run.ledger.update, end)
        if wants_promotion(record, settings.promote):
            root = patiently(open_storage, settings.output_uri, run.metrics)
            patiently(promote, root, run.storage.uri, record, settings.promote)
            patiently(run.ledger.set_fields, promotion_settled=True)
        run.metrics.phase("finished")
        assert record.adapter is not None
        tidy(run, record.adapter.key, folder)
    return record


def _export_context(
    run: Run,
    model: BaseModel,
    trained: Trained,
    patiently: Patience,
    folder: Path,
    facts: CardFacts,
) -> ExportContext:
    return ExportContext(
        settings=run.settings,
        storage=run.storage,
        ledger=run.ledger,
        stop=run.stop,
        patiently=patiently,
        observer=run.metrics,
        alive=run.metrics.moved,
        model=model,
        adapter=folder,
        facts=facts,
        step=trained.step,
        work_dir=run.work_dir,
        own_dir=run.own_dir,
    )


def _seal(run: Run, data: PreparedData, folder: Path) -> None:
    files = data.report.as_dict()["files"]

    def state(digests: Mapping[str, str]) -> Mapping[str, Any]:
        record = run.ledger.record
        return provenance.statement(record, run.settings, files, digests, finished_on=now())

    publish.seal(folder, state)


def _card_facts(
    run: Run,
    model: BaseModel,
    data: PreparedData,
    trained: Trained,
    evaluation: dict[str, Any] | None,
    gate: str,
) -> CardFacts:
    record, family = run.ledger.record, run.settings.family
    recorded = record.fingerprint | {f"model.{name}": said for name, said in record.model.items()}
    return CardFacts(
        run_uri=run.settings.run_uri,
        base_model=run.settings.base_model,
        revision=record.model["revision"],
        step=trained.step,
        settings=asdict(run.settings.hyperparameters()),
        data=data.report.as_dict(),
        fingerprint={name: value for name, value in recorded.items() if value is not None},
        evaluation=evaluation,
        attempts=run.ledger.attempt,
        gate=gate,
        licence=model.licence,
        tool_call_parser=_tool_call_parser(run.settings, data.report.dialects),
        reasoning_parser=family.reasoning_parser,
        curve=_curve(record, trained),
    )


def _curve(record: RunRecord, trained: Trained) -> bytes | None:
    try:
        return loss_curve_svg(trained.history, record.resumed_at)
    except Exception:  # noqa: BLE001 - a picture must not cost the adapter
        _log.warning("the card has no curve", exc_info=True)
        return None


def _tool_call_parser(settings: Settings, dialects: Mapping[str, int]) -> str:
    """Calls that stood in the text, in Hermes form, are trained as they stood; those of OpenAI's
    form are written by the template."""
    from_template = 2 * dialects.get("openai", 0) >= sum(dialects.values())
    return settings.family.tool_call_parser if from_template else "hermes"


def _figures(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    """What fits a record that is written every few seconds: no examples."""
    if evaluation is None:
        return None
    return {name: value for name, value in evaluation.items() if name != "examples"}
