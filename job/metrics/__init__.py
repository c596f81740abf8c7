"""What machines see of a run while it runs: its metrics, its health, its progress, over HTTP."""

from job.metrics.collector import BuildInfo
from job.metrics.health import Health
from job.metrics.push import push
from job.metrics.registry import Metrics
from job.metrics.server import MetricsServer
from job.metrics.state import PHASES, Phase, Totals

__all__ = ["PHASES", "BuildInfo", "Health", "Metrics", "MetricsServer", "Phase", "Totals", "push"]
