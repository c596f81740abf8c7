"""How the fuzzer is told that something doesn't hold."""

from __future__ import annotations

_LONGEST = 2000
"""Characters of the details."""


class Violation(AssertionError):
    """Something that must hold doesn't. The first argument names it, the second has details."""


def ensure(holds: bool, what: str, detail: object = "") -> None:
    """Raises `Violation`."""
    if not holds:
        raise Violation(what, str(detail)[:_LONGEST])
