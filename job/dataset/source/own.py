"""What runs have written is no data: a prefix that holds the data may hold the output, too."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

RECORD: Final = "run.json"
"""Every run has it, before it writes anything else."""

log = logging.getLogger(__name__)


def without_own(uri: str, names: Sequence[str], output_uri: str | None) -> list[str]:
    """`names`, which are URIs of what lies below `uri`, without those that runs have written.

    Left out is all that lies below `output_uri` where that is deeper than `uri`. Where it is the
    same, the data lie beside the runs: only the folders of runs are left out.
    """
    own = set(_own(uri, names, output_uri)) if output_uri else set()
    if own:
        log.info(
            "%s: %d objects are of runs below FORGE_OUTPUT_URI and are left out", uri, len(own)
        )
    return [name for name in names if name not in own]


def _own(uri: str, names: Sequence[str], output_uri: str) -> Iterator[str]:
    prefix, root = _folder(uri), _folder(output_uri)
    runs = {root}
    if prefix == root:
        held = (_absolute(name).removeprefix(root).split("/") for name in names)
        runs = {f"{root}{parts[0]}/" for parts in held if parts[1:] == [RECORD]}
    elif not root.startswith(prefix):
        return
    for name in names:
        if _absolute(name).startswith(tuple(runs)):
            yield name


def _folder(uri: str) -> str:
    return _absolute(uri).rstrip("/") + "/"


def _absolute(uri: str) -> str:
    return uri if uri.startswith("s3://") else os.path.normpath(Path(uri).absolute())
