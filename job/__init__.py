"""Forge Job: fine-tunes models on tool-calling conversations, as a batch job that can be killed.

from job import load_settings, run_job

result = run_job(load_settings(run_id="r1", ...), on_progress=print)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from job.version import __version__

if TYPE_CHECKING:
    from job.config import Settings, load_settings
    from job.lifecycle import StopToken
    from job.run import RunResult, run_job
    from job.stages.monitor import Progress

__all__ = [
    "Progress",
    "RunResult",
    "Settings",
    "StopToken",
    "__version__",
    "load_settings",
    "run_job",
]

_HOMES = {
    "Progress": "job.stages.monitor",
    "RunResult": "job.run",
    "Settings": "job.config",
    "StopToken": "job.lifecycle",
    "load_settings": "job.config",
    "run_job": "job.run",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `status` must not wait for the rest."""
    if name not in _HOMES:
        raise AttributeError(f"module 'job' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
