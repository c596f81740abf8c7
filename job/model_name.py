"""What names a model, taken apart once: a hub's id, a folder, or a mirror in S3.

Only a hub's id has a revision: in a path or a key an `@` is a character like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class ModelName:
    """What `FORGE_MODEL` says, or another setting that names a model."""

    kind: Literal["hub", "folder", "mirror"]
    name: str
    """`owner/name`, the absolute path, or `s3://bucket/prefix`."""
    revision: str | None = None
    """The branch, tag or commit that was asked for on a hub."""

    @classmethod
    def parse(cls, text: str) -> ModelName:
        """Any text has a meaning; whether a hub could have such an id is not looked at."""
        if text.startswith("s3://"):
            return cls("mirror", text)
        if text.startswith("/"):
            return cls("folder", text)
        name, _, revision = text.partition("@")
        return cls("hub", name, revision or None)

    def __str__(self) -> str:
        return self.name if self.revision is None else f"{self.name}@{self.revision}"
