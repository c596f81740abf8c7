"""Where llama.cpp's converter lies for the tests."""

from __future__ import annotations

import os
from pathlib import Path

from scripts.gguf_converter import SCRIPT

# Read at import: no test sees a variable of ours.
_GIVEN = os.environ.get("FORGE_TEST_GGUF_CONVERTER")

MISSING = "no convert_hf_to_gguf.py: scripts/gguf_converter.py fetches it"


def found() -> Path | None:
    path = Path(_GIVEN) if _GIVEN else SCRIPT
    return path if path.is_file() else None
