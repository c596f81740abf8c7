"""Rows to tokens, and the report of them."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from job.dataset import DataFile, DataRejected, DataReport, PreparedData, PrepareOptions, prepare
from job.evaluation.reading import Reading, read_turns
from job.ledger import put
from job.model import BaseModel
from job.promotion.gate import gate_of, refuse_unjudgeable
from job.stages.context import PREPARED, Run

_log = logging.getLogger(__name__)


def prepare_data(run: Run, files: list[DataFile], model: BaseModel) -> tuple[PreparedData, Reading]:
    """Check, render, mask and split; the data report goes to storage either way. The second is how
    answers to the held-out rows are read."""
    options = PrepareOptions.from_settings(run.settings, model.position_limit)
    if options.max_seq_length < run.settings.hyperparameters().max_seq_length:
        _log.warning("the model has %d positions: longer rows don't fit", options.max_seq_length)
    try:
        data = prepare(files, model.chat, options, run.own_dir / PREPARED, run.metrics.moved)
    except DataRejected as rejection:
        _report_data(run, rejection.report)
        raise
    _report_data(run, data.report)
    reading = read_turns(model.chat, data.evaluation_rows)
    _refuse_or_warn(run, reading)
    return data, reading


def _refuse_or_warn(run: Run, reading: Reading) -> None:
    """Before any GPU time. Raises `SettingsError` where right calls would not pass a gate."""
    refuse_unjudgeable(run.settings, reading)
    for notice in reading.notices():
        _log.warning("evaluation: %s", notice)
    groups = reading.call_groups
    if told := gate_of(run.settings).early_notice(len(groups), groups):
        _log.warning(told)


def _report_data(run: Run, report: DataReport) -> None:
    patiently = run.patience()
    for name, content in report.artifacts().items():
        key = f"dataset/{name}"
        send = (
            partial(run.storage.upload, key, content)
            if isinstance(content, Path)
            else partial(run.storage.write, key, content)
        )
        patiently(put, run.storage, run.ledger, key, send)
    run.metrics.dataset(report.results)
    _log.info("data: %s", report.headline())
    for notice in report.notices():
        _log.warning("data: %s", notice)
