"""`validate`: everything about a run that can be checked without a GPU and without torch.

The checks go in the order in which a run would meet the faults, and all of them are made: the
exit code is the one the run would have died with, the list shows what else there is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

from job import exports
from job.config import Settings
from job.dataset import (
    DataFile,
    DataRejected,
    DataReport,
    PrepareOptions,
    check_only,
    fetch,
    prepare,
)
from job.dataset.review.table import table
from job.errors import JobError, Problem, Unavailable, describe
from job.evaluation.reading import Reading, read_turns
from job.memory import Shape, foresee
from job.model import BaseModel, look_at, other_family
from job.preflight import checks
from job.preflight.checks import NEEDED_ELSEWHERE, Check, Finding, Look, check
from job.preflight.output import look_at_output
from job.preflight.resume import Past, past_of, refuse_other_content
from job.preflight.volume import volume_of
from job.promotion.gate import gate_of, refuse_unjudgeable
from job.storage import open_storage

_ROWS: Final = "rows"


@dataclass(frozen=True)
class Validation:
    """Everything that was looked at, and what is in the data."""

    checks: list[Check]
    report: DataReport | None = None
    """`None` where the data could not be read at all."""

    @property
    def exit_code(self) -> int:
        """The code that the run would have died with, 0 if it would not."""
        return checks.exit_code(self.checks)

    def as_json(self) -> list[dict[str, Any]]:
        """One object a check; that of the rows has the data's report."""
        return [
            made.as_dict()
            | ({"report": self.report.as_dict()} if made.name == _ROWS and self.report else {})
            for made in self.checks
        ]


def validate(
    settings: Settings, report_to: str | None = None, gpu_memory: float | None = None
) -> Validation:
    """Check storage, tokenizer and data of a run whose settings are sound already.

    The memory that training takes is estimated; with `gpu_memory` (GB, as cards are sold) it has
    to fit.

    With `report_to` (`s3://bucket/prefix` or a folder) the data's report, the quarantine and the
    mask preview go there, into `dataset/` as in a run.
    """
    volume = volume_of(settings)
    here = settings.work_dir if volume is not None and volume.result == "ok" else None
    with tempfile.TemporaryDirectory(prefix="forge-validate-", dir=here) as folder:
        return _Validator(settings, Path(folder), gpu_memory, volume).run(report_to)


def refused(error: JobError) -> Validation:
    """What there is to say where the settings themselves are wrong."""
    return Validation([Check("settings", "failed", f"{error}", error.exit_code)])


def render(validation: Validation) -> str:
    """A table for people."""
    lines = checks.lines(validation.checks)
    if validation.report is not None:
        lines += ["", *table(validation.report)]
    return "\n".join(lines)


class _Validator:
    """Makes the checks one after another; later ones use what earlier ones found."""

    def __init__(
        self, settings: Settings, work_dir: Path, gpu_memory: float | None, volume: Check | None
    ) -> None:
        self._settings = settings
        self._volume = volume
        self._gpu_memory = gpu_memory
        self._work_dir = work_dir
        self._files: list[DataFile] = []
        self._model: BaseModel | None = None
        self._report: DataReport | None = None
        self._reading: Reading | None = None
        self._past = Past(settings)

    def run(self, report_to: str | None) -> Validation:
        settled = f"profile {self._settings.profile}, run {self._settings.run_id}"
        made = [Check("settings", "ok", settled)]
        made += [self._volume] if self._volume else []
        output = check("storage", partial(look_at_output, self._settings))
        made.append(output)
        if output.result != "failed":
            made.append(check("record", self._record))
        if not self._past.finished:
            made += self._of_the_next_attempt()
            if self._report is not None and report_to is not None:
                made.append(check("report", partial(_uploaded, self._report, report_to)))
        elif report_to is not None:
            made.append(Check("report", "not checked", "the run is finished"))
        return Validation(made, self._report)

    def _of_the_next_attempt(self) -> Iterator[Check]:
        yield check("tokenizer", partial(_perhaps_elsewhere, self._tokenizer))
        model = self._model
        if model is not None and exports.wanted(self._settings):
            yield check("exports", partial(_perhaps_elsewhere, partial(self._exports, model)))
        yield check("data set", self._fetched)
        if self._files:
            yield from self._of_the_data()
        if model is not None:
            yield check("memory", partial(self._memory, model), may_be_out_of_reach=True)
        elif self._gpu_memory is not None:
            yield Check("memory", "not checked", "the model's config was not found")

    def _of_the_data(self) -> Iterator[Check]:
        rows = check(_ROWS, self._rows)
        yield rows
        if self._report is None:
            return
        if rows.result == "ok" and self._model is not None and self._past.begun:
            found = (self._past, self._files, self._model, self._report)
            yield check("fingerprint", partial(refuse_other_content, *found))
        if self._reading is not None and (self._reading.turns or self._reading.unread):
            yield check("answers", partial(self._judgeable, self._reading))
        if gate_of(self._settings).is_set:
            yield check("promotion gate", partial(self._gate, self._report))

    def _record(self) -> str:
        self._past = past_of(self._settings)
        self._settings = self._past.settings
        return self._past.told()

    def _tokenizer(self) -> str:
        self._model = look_at(self._settings, self._work_dir, self._past.revision)
        found = f"{self._settings.base_model} has a tokenizer and a chat template"
        note = other_family(self._settings, self._model.chat)
        return f"{found}; {note}" if note else found

    def _fetched(self) -> str:
        self._files = fetch(
            self._settings.dataset_uri,
            self._work_dir / "data",
            pins=self._past.pins,
            output_uri=self._settings.output_uri,
        )
        size = sum(file.source.size for file in self._files)
        return f"{len(self._files)} file(s), {size / 1e6:.1f} MB"

    def _exports(self, model: BaseModel) -> str | Finding:
        told = exports.check(self._settings, model, self._work_dir, trains_here=False)
        if lacking := exports.lacking(self._settings, model, self._work_dir):
            return Finding("warning", f"{told}; {describe(lacking)}; {NEEDED_ELSEWHERE}")
        return told

    def _memory(self, model: BaseModel) -> str:
        shape = Shape.of(model.config)
        if shape is None:
            raise Unavailable(Problem("GPU memory", "the model's config.json is of another kind"))
        lengths = self._report.lengths if self._report else None
        longest = lengths.max if lengths else None
        settings, memory = self._settings, self._gpu_memory
        return foresee(shape, settings.hyperparameters(), longest, memory, settings.engine)

    def _judgeable(self, reading: Reading) -> str | Finding:
        refuse_unjudgeable(self._settings, reading)
        if notices := list(reading.notices()):
            return Finding("warning", "\n".join(notices))
        return f"{len(reading.turns)} held-out turns, each right if answered as in the data"

    def _gate(self, report: DataReport) -> str | Finding:
        groups = None if self._reading is None else self._reading.call_groups
        judged = report.held_out_calls if groups is None else len(groups)
        notice = gate_of(self._settings).early_notice(judged, groups)
        if notice:
            return Finding("warning", notice)
        same = f" ({report.held_out_repeats} more are the same)" if report.held_out_repeats else ""
        return f"{judged} held-out tool-call turns to judge by{same}"

    def _rows(self) -> str:
        limit = self._model.position_limit if self._model else None
        options = PrepareOptions.from_settings(self._settings, limit)
        try:
            if self._model is None:
                self._report = check_only(self._files, options)
                return self._report.headline() + "; lengths and masks were not checked"
            folder = self._work_dir / "prepared"
            data = prepare(self._files, self._model.chat, options, folder)
            self._report = data.report
            self._reading = read_turns(self._model.chat, data.evaluation_rows)
        except DataRejected as rejection:
            self._report = rejection.report
            raise
        return self._report.headline()


def _perhaps_elsewhere(look: Look) -> str | Finding:
    """What is out of reach here need not be where the run will be, as seen from a laptop or CI."""
    try:
        return look()
    except Unavailable as error:
        ends = f"a run that doesn't reach it either ends with {error.exit_code}"
        return Finding("warning", f"{error}; {ends}")


def _uploaded(report: DataReport, uri: str) -> str:
    storage = open_storage(uri)
    report.upload(storage)
    return ", ".join(f"{storage.uri}/dataset/{name}" for name in report.artifacts())
