"""Many runs below one output: planned from one text, and told as one line for each.

A summary costs one listing request for a thousand run folders and one GET for each `run.json`;
nothing else of a run is looked at.
"""

from job.fleet.plan import Planned, plan
from job.fleet.records import Row, scan
from job.fleet.status import fleet_status
from job.fleet.table import Selection

__all__ = ["Planned", "Row", "Selection", "fleet_status", "plan", "scan"]
