"""What a backend tells whoever counts: bytes on the wire and requests sent again."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Feeds `s3_bytes_total{direction}` and `s3_retries_total{operation}`.

    Called from transfer threads, often: implementations are thread-safe, quick and don't raise.
    """

    def sent(self, count: int) -> None:
        """So many bytes of object content went out. A part that is sent again counts again."""
        ...

    def received(self, count: int) -> None:
        """So many bytes of object content came in. A part that is fetched again counts again."""
        ...

    def retried(self, operation: str) -> None:
        """A request was sent again. `operation` is S3's name for it, such as `PutObject`."""
        ...


class NoObserver:
    """Counts nothing."""

    def sent(self, count: int) -> None:
        """Nobody asked."""

    def received(self, count: int) -> None:
        """Nobody asked."""

    def retried(self, operation: str) -> None:
        """Nobody asked."""
