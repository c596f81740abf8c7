"""The gate, and `promoted.json`: which adapter of an output serving should use."""

from job.promotion.promoted import (
    PROMOTED_KEY,
    check_promotion,
    is_named,
    promote,
    promote_once,
    promoted_beside,
    read_promoted,
    wants_promotion,
)

__all__ = [
    "PROMOTED_KEY",
    "check_promotion",
    "is_named",
    "promote",
    "promote_once",
    "promoted_beside",
    "read_promoted",
    "wants_promotion",
]
