"""Several processes, one run: who am I, and what do all of us know? Free of torch until joined.

Rank 0 owns the run: it alone writes to storage and tells the others what to work on. What must be
the same everywhere (a stop, a save, a smaller micro-batch) is agreed on, never assumed.
"""

from job.ranks.base import ALONE, Alone, Place, Ranks, own_place
from job.ranks.ends import AllOver, End, PeerLost, StoppedTogether
from job.ranks.joined import JoinedRanks, joined

__all__ = [
    "ALONE",
    "AllOver",
    "Alone",
    "End",
    "JoinedRanks",
    "PeerLost",
    "Place",
    "Ranks",
    "StoppedTogether",
    "joined",
    "own_place",
]
