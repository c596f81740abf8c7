"""What `validate` and `doctor` say: one line for each thing that was looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from job.errors import JobError, Unavailable

NEEDED_ELSEWHERE: Final = "the pod that trains needs it, not this one"
"""Said of what a check without the GPU lacks: it is made in another, smaller pod."""


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    result: Literal["ok", "warning", "failed", "not checked"]
    detail: str
    exit_code: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Finding:
    """What a look has found that is no failure (those are raised), and not simply good."""

    result: Literal["ok", "warning", "not checked"]
    detail: str


Look = Callable[[], "str | Finding"]
"""What it has found that is good, or a `Finding`. Raises `JobError` for what ends a run."""


def check(name: str, look: Look, *, may_be_out_of_reach: bool = False) -> Check:
    """Look, and put what is found, or raised, into words."""
    try:
        found = look()
    except JobError as error:
        if may_be_out_of_reach and isinstance(error, Unavailable):
            return Check(name, "not checked", str(error))
        return Check(name, "failed", f"{error.title}: {error}", error.exit_code)
    if isinstance(found, Finding):
        return Check(name, found.result, found.detail)
    return Check(name, "ok", found)


def exit_code(checks: Iterable[Check]) -> int:
    """The code of the first failure, 0 if there is none."""
    return next((check.exit_code for check in checks if check.exit_code), 0)


def lines(checks: Iterable[Check]) -> list[str]:
    """A table for people."""
    checks = list(checks)
    width = max(len(check.name) for check in checks)
    return [
        f"{check.name:<{width}}  {check.result:<11}  " + check.detail.replace("\n", f"\n{'':15}")
        for check in checks
    ]
