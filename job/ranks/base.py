"""The seam: what the stages and training ask of the other ranks, and the answer of a lone one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Protocol

from job.errors import Problem, SettingsError

_NAMES: Final = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")


@dataclass(frozen=True)
class Place:
    """Of a process among the others, as torchrun's variables give it."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    host: str
    port: int

    @property
    def leads_node(self) -> bool:
        """Whether this process brings data, model and checkpoint to its node."""
        return self.local_rank == 0


def own_place(environ: Mapping[str, str]) -> Place | None:
    """None where the process is alone. Raises `SettingsError` for half of torchrun's variables."""
    if environ.get("WORLD_SIZE", "1") == "1":
        return None
    try:
        rank, size, local_rank, local_size, port = (int(environ[name]) for name in _NAMES)
        node = int(environ.get("GROUP_RANK") or rank // max(1, local_size))
        host = environ["MASTER_ADDR"]
    except (KeyError, ValueError) as error:
        names = ", ".join((*_NAMES, "MASTER_ADDR"))
        hint = f"torchrun sets {names}; unset WORLD_SIZE for a single process"
        raise SettingsError(
            Problem("WORLD_SIZE", f"is set, but not all else: {error}", hint)
        ) from (error)
    if not (0 <= rank < size and 0 <= local_rank < local_size <= size):
        found = f"RANK {rank} of WORLD_SIZE {size}, LOCAL_RANK {local_rank} of {local_size}"
        hint = "a rank is 0 or more, and below its number of processes"
        raise SettingsError(Problem("RANK", f"there is no such place: {found}", hint))
    return Place(rank, size, local_rank, local_size, node, host, port)


class Ranks(Protocol):
    """All methods but `announce` are collective: every rank calls them in the same order."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def all_gather(self, *values: int) -> list[tuple[int, ...]]:
        """What every rank gave, by rank. A few bytes over the CPU's network."""
        ...

    def gather(self, data: bytes) -> list[bytes]:
        """What every rank gave, by rank, at rank 0; nothing elsewhere."""
        ...

    def broadcast(self, value: int, waiting: Callable[[], None]) -> int:
        """What rank 0 gave, which may have worked for it as long as it liked. The others call
        `waiting` now and then."""
        ...

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Inside, a broken connection raises why the other side ended."""
        ...


class Alone:
    """Keeps `Ranks` for a single process, without any group."""

    rank = 0
    size = 1

    def all_gather(self, *values: int) -> list[tuple[int, ...]]:
        return [values]

    def gather(self, data: bytes) -> list[bytes]:
        return [data]

    def broadcast(self, value: int, waiting: Callable[[], None]) -> int:
        return value

    @contextmanager
    def explained(self) -> Iterator[None]:
        yield


ALONE: Final = Alone()

Message = dict[str, Any]
