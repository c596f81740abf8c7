"""The report of a run: `report.json` for machines, `metrics.jsonl`, `report.html` for people."""

from job.report.build import build
from job.report.timeline import held_seconds

__all__ = ["build", "held_seconds"]
