"""`doctor`: can a run work here? Looked at from inside the image, on the node, with its settings.

All checks are made, whatever the others find. torch is imported for the GPU alone, and not at all
without one.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from job.cgroups import Cgroups
from job.config import Settings, load_settings
from job.engines import DRIVER
from job.errors import JobError, SettingsError
from job.preflight.checks import NEEDED_ELSEWHERE, Check, Finding, Look, check
from job.preflight.doctor import limits, node, stores, volumes
from job.preflight.doctor.model import model
from job.preflight.doctor.needs import Needs
from job.preflight.doctor.wanted import Wanted
from job.preflight.output import look_at_output
from job.ranks.node import local_processes
from job.redact import redact

_TITLE = f"{SettingsError.title}: "
_UNKNOWN = Finding("not checked", "the settings are wrong")
_NOT_ASKED = Finding("not checked", "--no-gpu")


def doctor(*, gpu: bool = True) -> list[Check]:
    """Look at everything that a run here depends on. Raises nothing."""
    settings: Settings | None = None

    def read() -> str:
        nonlocal settings
        settings = load_settings()
        return f"profile {settings.profile}, run {settings.run_id}"

    first = _checked("settings", read)
    return [first, *Doctor(Wanted(settings, gpu)).checks()]


@dataclass(frozen=True)
class Doctor:
    """The checks in the order in which a run would meet the faults."""

    wanted: Wanted
    driver: Path = DRIVER
    cgroups: Cgroups = field(default_factory=Cgroups)

    def checks(self) -> list[Check]:
        card = _checked("gpu", self._gpu)
        return [
            card,
            _checked("driver", partial(self._driver, works=card.result in ("ok", "warning"))),
            _checked("compiler", self._compiler),
            _checked("folders", lambda: volumes.folders(self.wanted)),
            _checked("disk", self._disk),
            _checked("memory", self._memory),
            *self._of_the_settings(),
        ]

    @cached_property
    def _needs(self) -> Needs | None:
        settings = self.wanted.settings
        return Needs.of(settings) if settings else None

    def _gpu(self) -> str | Finding:
        return node.gpu(self.wanted.needs_gpu) if self.wanted.gpu else _NOT_ASKED

    def _driver(self, *, works: bool) -> str | Finding:
        if not self.wanted.gpu:
            return _NOT_ASKED
        cuda, needed = node.cuda_of_torch(), self.wanted.needs_gpu
        return node.driver(self.driver, cuda, needed=needed, works=works)

    def _compiler(self) -> str | Finding:
        return node.compiler(self.wanted.work_dir, needed=self.wanted.needs_gpu)

    def _disk(self) -> str | Finding:
        return self._where_it_trains(lambda: volumes.disk(self.wanted, self._needs))

    def _memory(self) -> str | Finding:
        gpu = self.wanted.needs_gpu
        processes = local_processes(os.environ) if self.wanted.gpu else 1
        return self._where_it_trains(
            lambda: limits.memory(self.cgroups, self._needs, gpu=gpu, processes=processes)
        )

    def _where_it_trains(self, look: Look) -> str | Finding:
        """Without the GPU this is another, smaller pod: what it lacks the run need not lack."""
        try:
            return look()
        except SettingsError as error:
            if self.wanted.gpu:
                raise
            return Finding("warning", f"{error}; {NEEDED_ELSEWHERE}")

    def _of_the_settings(self) -> list[Check]:
        settings = self.wanted.settings
        if settings is None:
            names = ("clock", "s3", "model", "data set", "grace")
            return [Check(name, _UNKNOWN.result, _UNKNOWN.detail) for name in names]
        return [
            _checked("clock", lambda: stores.clock(settings.run_uri), may_be_out_of_reach=True),
            _checked("s3", lambda: look_at_output(settings)),
            _checked("model", lambda: model(settings, self.wanted)),
            _checked("data set", lambda: stores.data(settings.dataset_uri, settings.output_uri)),
            _checked("grace", lambda: limits.grace(settings.grace_seconds, self._needs or Needs())),
        ]


def _checked(name: str, look: Look, *, may_be_out_of_reach: bool = False) -> Check:
    """A check that can't stop those after it, and shows no secret."""
    try:
        found = check(name, look, may_be_out_of_reach=may_be_out_of_reach)
    except OSError as error:
        # Of the node, as every other fault that is found here.
        found = Check(name, "failed", str(error), SettingsError.exit_code)
    except Exception as error:
        logging.getLogger(__name__).exception("the check %s broke", name)
        said = f"{JobError.title}: {type(error).__name__}: {error}"
        found = Check(name, "failed", said, JobError.exit_code)
    # The code is right for a fault of the node, its title isn't.
    return replace(found, detail=redact(found.detail.removeprefix(_TITLE)))
