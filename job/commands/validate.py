"""`validate`: its checks, in a table or as JSON."""

from __future__ import annotations

import argparse

from job.commands.as_run import log_as_the_run
from job.commands.output import complain, tell, tell_json
from job.config import load_settings
from job.errors import JobError
from job.preflight.validate import refused, render, validate


def command(arguments: argparse.Namespace) -> int:
    log_as_the_run()
    try:
        validation = validate(load_settings(), arguments.report_to, arguments.gpu_memory)
    except JobError as error:
        complain(str(error))
        validation = refused(error)
        if not arguments.json:
            return validation.exit_code
    if arguments.json:
        tell_json(validation.as_json())
    else:
        tell(render(validation))
    return validation.exit_code
