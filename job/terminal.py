"""Text from storage on a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """One line with what would move the cursor or colour the screen written out: names and reasons
    come from whoever could write to the bucket."""
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
