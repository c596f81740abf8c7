"""What a pod is to start, by the variables that torchrun would read; free of torch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from job.errors import JobError, Problem, SettingsError

_PORT: Final = 29500
_held: Final[list[socket.socket]] = []


@dataclass(frozen=True)
class Node:
    """What this pod is to start."""

    nodes: int
    workers: int
    number: int
    host: str
    port: int

    def environment(self, local_rank: int) -> dict[str, str]:
        """torchrun's variables for one worker."""
        return {
            "WORLD_SIZE": str(self.nodes * self.workers),
            "RANK": str(self.number * self.workers + local_rank),
            "LOCAL_RANK": str(local_rank),
            "LOCAL_WORLD_SIZE": str(self.workers),
            "GROUP_RANK": str(self.number),
            "MASTER_ADDR": self.host,
            "MASTER_PORT": str(self.port),
            # Workers with a thread for every core each would wait for one another.
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(self._threads()),
        }

    def _threads(self) -> int:
        return max(1, len(os.sched_getaffinity(0)) // self.workers)


def wanted(environ: Mapping[str, str]) -> Node | None:
    """What `PET_*` ask for; None for a single process, and for a worker of torchrun.

    Raises `SettingsError`.
    """
    if "LOCAL_RANK" in environ:
        return None
    nodes, workers = _count(environ, "PET_NNODES"), _workers(environ)
    if nodes * workers == 1:
        return None
    number = _node_rank(environ, nodes)
    host = environ.get("PET_MASTER_ADDR") or ("127.0.0.1" if nodes == 1 else "")
    if not host:
        hint = "the name under which the other nodes find the first one"
        raise SettingsError(Problem("PET_MASTER_ADDR", f"is not set, with {nodes} nodes", hint))
    port = _PORT if nodes > 1 else free_port()
    return Node(nodes, workers, number, host, _number(environ, "PET_MASTER_PORT", port))


def _node_rank(environ: Mapping[str, str], nodes: int) -> int:
    if nodes > 1 and not environ.get("PET_NODE_RANK"):
        hint = "0 for the first node: without it every node would take itself for the first"
        raise SettingsError(Problem("PET_NODE_RANK", f"is not set, with {nodes} nodes", hint))
    number = _number(environ, "PET_NODE_RANK", 0)
    if not 0 <= number < nodes:
        raise SettingsError(Problem("PET_NODE_RANK", f"is {number}, with {nodes} nodes"))
    return number


def free_port() -> int:
    """Nobody else has to know it: two runs on one machine, or its network, are not in each other's
    way. It is held as long as this process lives: rank 0 listens only seconds later."""
    _held.append(held_port())
    return int(_held[-1].getsockname()[1])


def held_port() -> socket.socket:
    """A port of its own, at which nobody listens. The kernel gives it to no one who asks for any,
    as every connection does, and who is told it may listen there with SO_REUSEADDR, which servers
    set."""
    held = socket.socket()
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held.bind(("127.0.0.1", 0))
    return held


def local_processes(environ: Mapping[str, str]) -> int:
    """How many of the run share this node: as torchrun says, or as we would start.

    Raises `SettingsError`.
    """
    if environ.get("LOCAL_WORLD_SIZE"):
        return _count(environ, "LOCAL_WORLD_SIZE")
    return _workers(environ)


def _number(environ: Mapping[str, str], name: str, default: int) -> int:
    value = environ.get(name) or str(default)
    try:
        return int(value)
    except ValueError:
        hint = "elastic ranges are not supported: a run keeps its number of processes"
        raise SettingsError(Problem(name, f"is {value!r}, not a number", hint)) from None


def _count(environ: Mapping[str, str], name: str) -> int:
    number = _number(environ, name, 1)
    if number < 1:
        raise SettingsError(Problem(name, f"is {number}", "set 1 or more, or leave it out"))
    return number


def _workers(environ: Mapping[str, str]) -> int:
    """`auto` and `gpu`, Kubeflow's words, mean a worker for each card."""
    if environ.get("PET_NPROC_PER_NODE") not in ("auto", "gpu", "cpu"):
        return _count(environ, "PET_NPROC_PER_NODE")
    if environ["PET_NPROC_PER_NODE"] == "cpu":
        return 1
    counting = "import torch; print(torch.cuda.device_count())"  # in a process of its own
    found = subprocess.run(
        [sys.executable, "-c", counting], capture_output=True, text=True, check=False
    )
    if found.returncode:
        said = (found.stderr.strip().splitlines() or [f"code {found.returncode}"])[-1]
        raise JobError(Problem("PET_NPROC_PER_NODE", f"this node's GPUs can't be counted: {said}"))
    return max(1, int(found.stdout))
