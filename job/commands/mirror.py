"""`mirror`: a model from a hub into S3."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from job.commands.output import tell
from job.engines.source import mirror
from job.errors import AccessDenied, JobError, Problem, SettingsError, Unavailable
from job.logs import configure

_OUT_OF_REACH: Final = "run it where the hub can be reached"


def command(arguments: argparse.Namespace) -> int:
    configure("auto", None)
    with _of_the_argument():
        size = mirror(arguments.model, arguments.uri)
    tell(f"{arguments.uri} holds {arguments.model} ({size / 1e9:.2f} GB): FORGE_MODEL may name it")
    return 0


@contextmanager
def _of_the_argument() -> Iterator[None]:
    """What is wrong with the model is no setting's fault here; and a mirror is no way out for the
    command that makes it."""
    try:
        yield
    except (AccessDenied, SettingsError, Unavailable) as error:
        raise type(error)(_renamed(problem, error) for problem in error.problems) from error


def _renamed(problem: Problem, error: JobError) -> Problem:
    if problem.where != "FORGE_MODEL":
        return problem
    hint = _OUT_OF_REACH if isinstance(error, Unavailable) else problem.hint
    return replace(problem, where="mirror <model>", hint=hint)
