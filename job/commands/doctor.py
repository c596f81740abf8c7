"""`doctor`: its checks, in a table or as JSON."""

from __future__ import annotations

import argparse

from job.commands.as_run import log_as_the_run
from job.commands.output import tell, tell_json
from job.preflight.checks import exit_code, lines
from job.preflight.doctor import doctor


def command(arguments: argparse.Namespace) -> int:
    log_as_the_run()
    checks = doctor(gpu=not arguments.no_gpu)
    if arguments.json:
        tell_json([check.as_dict() for check in checks])
    else:
        tell("\n".join(lines(checks)))
    return exit_code(checks)
