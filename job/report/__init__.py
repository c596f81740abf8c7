"""The report of a run: `report.json` for machines, `metrics.jsonl`, `report.html` for people."""

from job.report.build import build

__all__ = ["build"]
