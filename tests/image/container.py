"""The job in a container of the image: process 1, read-only root, a user that nobody knows."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.jobs import JobProcess
from tests.image.built import Image

UID: Final = 1_234_567
"""In no image's /etc/passwd."""

MOUNTED: Final = "/mnt"
"""Where the given folder is seen, read-only."""

_ENTER: Final = Path(__file__).with_name("enter.py")
_UNSHARE: Final = ("unshare", "--mount", "--pid", "--fork", "--kill-child")


@dataclass(frozen=True)
class Pod:
    """What a pod's specification would say."""

    image: Image
    root: Path
    termination_log: Path
    mounted: Path
    uid: int = UID
    gid: int = 0

    def command(self, *arguments: str) -> list[str]:
        """What runs `arguments` in a new container; none: the image's own entrypoint."""
        asked = {
            "root": str(self.root),
            "termination_log": str(self.termination_log),
            "mounted": str(self.mounted),
            "uid": self.uid,
            "gid": self.gid,
            "env": self.image.env,
            "folder": self.image.config["WorkingDir"],
            "command": list(arguments) or self.image.config["Entrypoint"],
        }
        return [*_UNSHARE, sys.executable, str(_ENTER), json.dumps(asked)]

    def run(self, *arguments: str) -> str:
        """Run it to its end and return what it printed."""
        done = subprocess.run(
            self.command(*arguments), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def started(self, env: Mapping[str, str], log: Path) -> Iterator[ContainedJob]:
        job = ContainedJob(env, log, command=self.command())
        try:
            yield job
        finally:
            job.kill()


class ContainedJob(JobProcess):
    """`unshare` is our child; the container's process 1 is its only one."""

    @property
    def pid(self) -> int:
        parent = self._process.pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0])

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)
