"""`mirror`: a model from a hub into S3."""

from __future__ import annotations

import argparse

from job.commands.output import tell
from job.engines.source import mirror
from job.logs import configure


def command(arguments: argparse.Namespace) -> int:
    configure("auto", None)
    size = mirror(arguments.model, arguments.uri)
    tell(f"{arguments.uri} holds {arguments.model} ({size / 1e9:.2f} GB): FORGE_MODEL may name it")
    return 0
