"""How the end of another rank reaches the main thread: as a process of its own, for its signals."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys, threading
from job.lifecycle import StopToken
from job.ranks.ends import End
from job.ranks.pulse import END, Pulse

class Store(dict):
    beats = 0
    def set(self, key, value):
        self[key] = value.encode()
        self.beats += 1
    def check(self, keys): return all(key in self for key in keys)
    def add(self, key, number): return number

stop = StopToken(grace_seconds=30)
stop.install()
store = Store({END: End(1, int(sys.argv[1]), "of its own").dump().encode()})
pulse = Pulse(store, 0, (), stop, lambda cause: None, timeout_seconds=60)
try:
    while store.beats < 3:  # the end is heard at the first
        threading.Event().wait(0.1)
except BaseException as error:
    stop.leaving()
    print(type(error).__name__, error.exit_code, stop.signalled)
else:
    print("undisturbed", pulse.end.code)
"""


def _hears(code: int) -> str:
    command = [sys.executable, "-c", SCRIPT, str(code)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_a_failure_ends_the_work_and_is_no_signal() -> None:
    assert _hears(70) == "_PeerFailed 70 False"


def test_a_preemption_ends_it_under_its_code() -> None:
    assert _hears(75) == "Preempted 75 False"


def test_a_good_end_disturbs_nobody() -> None:
    assert _hears(0) == "undisturbed 0"
