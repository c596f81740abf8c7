"""The place of a run's output, as `validate` and `doctor` look at it."""

from __future__ import annotations

from job.config import Settings
from job.preflight.checks import Finding
from job.promotion import check_promotion
from job.storage import open_storage, probe


def look_at_output(settings: Settings) -> str | Finding:
    """Write, read and write under conditions as a run does at its start, also where it would
    promote. Raises what would end the run there."""
    uri = settings.run_uri
    conditional = probe(open_storage(uri))
    check_promotion(settings)
    if conditional:
        return f"{uri} takes writes and honours conditions"
    found = f"{uri} takes writes, but ignores conditions"
    return Finding("warning", f"{found}: two attempts at once are told apart only by reading first")
