"""How a rank ended, as the others are told."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from job.errors import Fenced, JobError, Preempted


class PeerLost(JobError):
    """70: another rank is gone without a word. The last durable checkpoint stands."""

    title = "lost another rank"


class _PeerFailed(JobError):
    """Another rank's error, with its exit code."""

    def __init__(self, end: End) -> None:
        self.exit_code = end.code
        self.title = f"rank {end.rank} failed"
        super().__init__(end.message)


class StoppedTogether(Preempted):
    """All ranks stop at this boundary, since another one was asked to: that one says why."""

    def __init__(self, *, failed: bool = False) -> None:
        self.failed = failed
        """Whether that was a failure, of which nothing else is known yet."""
        super().__init__("another rank was asked to stop")


class AllOver(Exception):
    """Rank 0 ended well before it told what to work on: the run was finished before."""


@dataclass(frozen=True)
class End:
    """The first one that is announced is everybody's."""

    rank: int
    code: int
    message: str

    def as_cause(self) -> BaseException:
        """What a rank that learns of it ends with: the same exit code."""
        if self.code == Preempted.exit_code:
            return Preempted(f"rank {self.rank}: {self.message}")
        if self.code == Fenced.exit_code:
            return Fenced(f"rank {self.rank}: {self.message}")
        return _PeerFailed(self)

    def dump(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def load(cls, data: bytes) -> End:
        return cls(**json.loads(data))


def end_of(rank: int, error: BaseException | None) -> End:
    """Of a rank that ends with `error`, or well."""
    if error is None:
        return End(rank, 0, "succeeded")
    return End(rank, getattr(error, "exit_code", JobError.exit_code), str(error)[:1000])
