"""The whole job as one side of the comparison: `benchmarks.whole`, with Unsloth imported first.

python -m benchmarks.gpu.job_side plan.json
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def main(plan: dict[str, Any]) -> None:
    if plan["settings"]["engine"] == "unsloth" and importlib.util.find_spec("unsloth"):
        import unsloth  # noqa: F401  (the stopwatch imports what it patches)

    from benchmarks.whole import main as whole

    whole(plan)


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
