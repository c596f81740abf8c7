"""`plan`: many runs from one text, each checked."""

from __future__ import annotations

import argparse
import json

from job.commands.output import STDIN, complain, tell, text_of
from job.plan import plan, write


def command(arguments: argparse.Namespace) -> int:
    runs = plan(_runs_text(arguments.runs), arguments.promote)
    if arguments.into is not None:
        write(runs, arguments.into)
    ungated = sum(run.never_promoted for run in runs)
    if arguments.promote and ungated:
        which = "none can" if ungated == len(runs) else f"{ungated} of {len(runs)} can't"
        names = "FORGE_GATE_MIN_EXACT, FORGE_GATE_MIN_GAIN"
        complain(f"no gate is set ({names}): {which} be promoted")
    items = [run.as_item() for run in runs]
    if arguments.json:
        print(json.dumps(items))  # a workflow's next steps need it as it is
    else:
        tell("\n".join(f"{item['run-id']}  {item['settings']}" for item in items))
    return 0


def _runs_text(given: str) -> str:
    """No argument may be longer than 128 KiB on Linux; a file may."""
    if given == STDIN or given.startswith("@"):
        return text_of(given.removeprefix("@"), "the runs")
    return given
