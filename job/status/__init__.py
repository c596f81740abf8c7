"""What records say: of one run, and of all below an output.

A summary costs one listing request for a thousand run folders (none for runs that are named), one
GET for each `run.json`, and one for `promoted.json`; nothing else of a run is looked at.
"""

from job.status.one_run import describe, sparkline, status

__all__ = ["describe", "sparkline", "status"]
