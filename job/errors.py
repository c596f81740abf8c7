"""Every way a run can end, as one tree of exceptions, each with its exit code.

    JobError                     70  unexpected, or no progress over several attempts
    ├── DataError                65  data rejected or changed
    │   └── DataChanged          65  the data of an earlier attempt are no longer to be had
    ├── Unavailable              69  storage or model source unreachable after retries
    ├── NoProgress               70  attempt after attempt ends where it began
    ├── OutOfDisk                70  the work volume is full
    ├── CardLost                 70  no card on this node, where an earlier attempt had one
    ├── MicroBatchTooLarge       70  out of GPU memory; the next attempt takes a smaller one
    ├── OutOfGpuMemory           71  out of GPU memory at micro-batch 1
    ├── AccessDenied             77  credentials or permission refused
    ├── SettingsError            78  bad setting
    │   └── FingerprintMismatch  78  resume with another fingerprint
    ├── GateFailed               80  the candidate was uploaded, nothing promoted
    └── Diverged                 81  the loss or its gradient is not finite
    Stopped (BaseException)          asked to stop from outside; `except Exception` lets it pass
    ├── Preempted                75  what there was to save is durable
    └── Fenced                   76  a newer attempt owns the run

The codes are the contract with `podFailurePolicy`, Argo's `retryStrategy` and CI
(`EXIT_CODES` is the table they are tested against). 64 is left free: Argo's emissary uses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what was found, and how to mend it."""

    where: str
    """The setting (`FORGE_MAX_STEPS`), or `file:line`, or an S3 URI."""
    found: str
    hint: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.found}" + (f" ({self.hint})" if self.hint else "")


class JobError(Exception):
    """The base of every error that ends a run with a code of its own."""

    exit_code: int = 70
    title: str = "unexpected error"

    def __init__(self, problems: str | Problem | Iterable[Problem], remedy: str = "") -> None:
        """`remedy` is what mends all problems together, where that is one thing."""
        self.problems = _as_problems(problems)
        self.remedy = remedy
        super().__init__(describe(self.problems) + self._way_out())

    def _way_out(self) -> str:
        if not self.remedy:
            return ""
        end = "\n" if len(self.problems) > 1 else " "
        return f";{end}to mend it: {self.remedy}"


class DataError(JobError):
    exit_code = 65
    title = "data rejected"


class DataChanged(DataError):
    title = "resume refused: the data were changed since this run began"


class Unavailable(JobError):
    exit_code = 69
    title = "storage or model source unreachable"


class NoProgress(JobError):
    title = "no progress over several attempts"


class OutOfDisk(JobError):
    exit_code = 70
    title = "work volume is full"


class CardLost(JobError):
    title = "this node has no card that can be used"


class MicroBatchTooLarge(JobError):
    title = "out of GPU memory, goes on with a smaller micro-batch"


class OutOfGpuMemory(JobError):
    exit_code = 71
    title = "out of GPU memory"


class AccessDenied(JobError):
    exit_code = 77
    title = "credentials or permission refused"


class SettingsError(JobError):
    exit_code = 78
    title = "bad setting"


class FingerprintMismatch(SettingsError):
    title = "resume refused: this run was started with other settings or data"


class GateFailed(JobError):
    exit_code = 80
    title = "promotion gate failed"


class Diverged(JobError):
    exit_code = 81
    title = "training diverged"


class Stopped(BaseException):
    """Asked to stop from outside. Not an `Exception`, so that no library swallows it."""

    exit_code: int = 75
    title: str = "stopped"

    def __init__(self, reason: str = "") -> None:
        self.reason = reason
        super().__init__(reason)


class Preempted(Stopped):
    exit_code = 75
    title = "preempted"


class Fenced(Stopped):
    exit_code = 76
    title = "fenced by a newer attempt"


EXIT_CODES: Final[dict[int, tuple[str, str]]] = {
    0: ("adapter verified in S3 and recorded", "–"),
    65: ("data rejected or changed", "FailJob"),
    69: ("storage or model source unreachable after retries", "Count"),
    70: ("unexpected error, or no progress over several attempts", "Count"),
    71: ("out of GPU memory at micro-batch 1", "FailJob"),
    75: ("preempted; what there was to save is durable", "Ignore"),
    76: ("fenced by a newer attempt", "Ignore"),
    77: ("credentials or permission refused", "FailJob"),
    78: ("bad setting, or resume with another fingerprint", "FailJob"),
    80: ("gate failed, candidate uploaded", "FailJob"),
    81: ("diverged (loss not finite)", "FailJob"),
}
"""Exit code → (meaning, what the Job's `podFailurePolicy` does with it)."""


def describe(problems: Sequence[Problem], limit: int = 50) -> str:
    """All problems, one a line, so that nobody mends them one per run."""
    if len(problems) == 1:
        return str(problems[0])
    lines = [f"  - {problem}" for problem in problems[:limit]]
    if len(problems) > limit:
        lines.append(f"  … and {len(problems) - limit} more")
    return "\n".join([f"{len(problems)} problems:", *lines])


def _as_problems(problems: str | Problem | Iterable[Problem]) -> tuple[Problem, ...]:
    if isinstance(problems, str):
        return (_Text(where="", found=problems),)
    if isinstance(problems, Problem):
        return (problems,)
    return tuple(problems)


class _Text(Problem):
    """A problem that is a plain sentence."""

    def __str__(self) -> str:
        return self.found
