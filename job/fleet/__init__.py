"""Many runs below one output, told as one line for each. `plan` makes them from one text; it is
not imported here, since it loads the settings.

A summary costs one listing request for a thousand run folders (none for runs that are named), one
GET for each `run.json`, and one for `promoted.json`; nothing else of a run is looked at.
"""

from job.fleet.named import run_ids
from job.fleet.records import Row, scan
from job.fleet.status import fleet_status
from job.fleet.table import Selection

__all__ = ["Row", "Selection", "fleet_status", "run_ids", "scan"]
