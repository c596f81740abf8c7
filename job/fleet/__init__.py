"""Many runs below one output: one line for each, for people and for machines.

It costs one listing request for a thousand run folders and one GET for each `run.json`; nothing
else of a run is looked at.
"""

from job.fleet.records import Row, scan
from job.fleet.status import fleet_status
from job.fleet.table import Selection

__all__ = ["Row", "Selection", "fleet_status", "scan"]
