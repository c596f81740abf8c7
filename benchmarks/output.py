"""How a benchmark leaves its result: JSON with every figure, and a table beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def leave(out: Path, result: Mapping[str, Any], table: str) -> None:
    """Write `result` to `out` and `table` (Markdown) beside it, and print the table."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(table, encoding="utf-8")
    print(table)
