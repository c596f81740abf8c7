"""The job's side: `python -m job` as it is, with the times of its phases noted from outside.

    python -m benchmarks.startup.whole record.json

Settings come from the environment, as in a pod. The record holds the time of each phase's begin and
of the first step's; written again at each, so that it is there when a signal ends the process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any, NoReturn


def main(record: Path) -> NoReturn:
    marks = {"began": time.time()}
    from job.__main__ import cli
    from job.metrics import Metrics, Phase

    def note(name: str) -> None:
        marks.setdefault(name, time.time())
        record.write_text(json.dumps(marks))

    enter = Metrics.phase

    def noted(self: Metrics, phase: Phase) -> None:
        enter(self, phase)
        note(phase)
        if phase == "training":
            _watch_first_step(note)

    Metrics.phase = noted  # type: ignore[method-assign]
    sys.argv = ["job"]
    cli()


def _watch_first_step(note: Any) -> None:
    """Only now: the callback's module imports torch, which is part of what is timed."""
    from job.training.callbacks import JobCallback

    begin = JobCallback.on_step_begin

    def on_step_begin(self: Any, *args: Any, **kwargs: Any) -> None:
        note("first step")
        begin(self, *args, **kwargs)

    JobCallback.on_step_begin = on_step_begin  # type: ignore[method-assign]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
