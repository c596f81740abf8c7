"""`validate`: its checks, in a table or as JSON."""

from __future__ import annotations

import argparse
import os

from job.commands.output import complain, tell, tell_json
from job.config import load_settings
from job.errors import JobError
from job.logs import configure
from job.preflight.validate import refused, render, validate


def command(arguments: argparse.Namespace) -> int:
    configure("auto", os.environ.get("FORGE_RUN_ID"))
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
