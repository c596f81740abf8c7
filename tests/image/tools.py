"""Programs that `make install` puts beside this interpreter."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.image.built import ROOT


def complaints(program: str, *arguments: str) -> str:
    """What a linter says in the project's folder; empty where it is content."""
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = shutil.which(program, path=places)
    assert found is not None, f"{program} is missing: make install"
    done = subprocess.run(
        [found, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr
