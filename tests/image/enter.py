"""Becomes a container of an unpacked image, as a cluster runs the job: for `tests.image.container`.

    unshare --mount --pid --fork python enter.py '<what to run, as JSON>'

Read-only root, an empty /scratch, /dev and /proc of its own, another user, no new privileges; the
program given takes this process's place and so is process 1 of its PID namespace. The network is
the machine's, as the tests' S3 server is on its loopback.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

_DEVICES: Final = ("null", "zero", "full", "random", "urandom")
_PASSED_ON: Final = ("AWS_", "FORGE_", "HF_", "OMP_", "NO_PROXY", "no_proxy")
"""What a pod's specification would set; nothing else of this machine's environment gets in."""

_PR_SET_NO_NEW_PRIVS: Final = 38


def main() -> NoReturn:
    asked: dict[str, Any] = json.loads(sys.argv[1])
    root = Path(asked["root"])
    _mount("--bind", root, root)
    _mount("-o", "remount,bind,ro", root)
    _mount("-t", "proc", "proc", root / "proc")
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", root / "scratch")
    _devices(root / "dev", Path(asked["termination_log"]))
    _mount("--bind", asked["mounted"], root / "mnt")
    _mount("-o", "remount,bind,ro", root / "mnt")
    os.chroot(root)
    os.chdir(asked["folder"])
    _become(asked["uid"], asked["gid"])
    passed_on = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    os.execvpe(asked["command"][0], asked["command"], asked["env"] | passed_on)  # noqa: S606


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)


def _devices(dev: Path, termination_log: Path) -> None:
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", dev)
    sources = {name: Path("/dev", name) for name in _DEVICES} | {"termination-log": termination_log}
    for name, source in sources.items():
        (dev / name).touch()
        _mount("--bind", source, dev / name)
    (dev / "shm").mkdir()
    _mount("-t", "tmpfs", "-o", "mode=1777", "tmpfs", dev / "shm")


def _become(uid: int, gid: int) -> None:
    """The capabilities go with the user."""
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError("the kernel refuses no_new_privs")


if __name__ == "__main__":
    main()
