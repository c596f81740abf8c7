"""`doctor`: its checks, in a table or as JSON."""

from __future__ import annotations

import argparse
import os

from job.commands.output import tell, tell_json
from job.logs import configure
from job.preflight.checks import exit_code, lines
from job.preflight.doctor import doctor


def command(arguments: argparse.Namespace) -> int:
    configure("auto", os.environ.get("FORGE_RUN_ID"))
    checks = doctor(gpu=not arguments.no_gpu)
    if arguments.json:
        tell_json([check.as_dict() for check in checks])
    else:
        tell("\n".join(lines(checks)))
    return exit_code(checks)
