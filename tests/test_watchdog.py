"""A process whose main thread does not obey a stop, as a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys, time
from pathlib import Path
from job import __main__ as main
from job.lifecycle import StopToken
from job.watchdog import Watch

how, grace, words = sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])
stop = StopToken(grace_seconds=grace)
watch = Watch(stop, main._leave)
watch.last_words = lambda cause: words.write_text(str(cause))
if how == "lost":  # no signal: another thread has found that the main one waits in vain
    watch.last_words = lambda cause: (time.sleep(1.5), words.write_text(str(cause)))
    watch.leave(main.JobError("no sign of rank 1"))
if how == "talks":
    watch.before_leaving(lambda cause: time.sleep(60))
stop.install()
watch.begin()
ready = lambda: print("ready", flush=True)
if how == "leaves":
    try:
        ready()
        time.sleep(60)
    except BaseException:
        stop.leaving()
        time.sleep(2.5)
        os._exit(3)
if how == "deferred":
    with stop.deferred():
        ready()
        time.sleep(60)
first = True
while True:  # swallows what the handler raises, as a library might
    try:
        if first:
            first = False
            ready()
        time.sleep(60)
    except BaseException:
        continue
"""


def ends(tmp_path: Path, how: str, grace: str) -> tuple[int, str, str]:
    words, log = tmp_path / "words", tmp_path / "termination-log"
    log.touch()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how, grace, str(words)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "FORGE_TERMINATION_LOG": str(log)},
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == "ready"
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
    finally:
        process.kill()
        process.communicate()
    return code, words.read_text() if words.exists() else "", log.read_text()


def test_work_that_does_not_end_is_ended_long_before_the_grace_period(tmp_path: Path) -> None:
    code, words, log = ends(tmp_path, "stubborn", "3600")
    assert (code, words) == (75, "received SIGTERM")
    assert log.startswith("exit 75: preempted: received SIGTERM")


def test_others_who_do_not_answer_leave_time_for_the_last_words(tmp_path: Path) -> None:
    assert ends(tmp_path, "talks", "3600")[:2] == (75, "received SIGTERM")


def test_last_words_have_time_where_nobody_wants_the_pod(tmp_path: Path) -> None:
    words = tmp_path / "words"
    command = [sys.executable, "-c", PROGRAM, "lost", "20", str(words)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 70
    assert words.read_text() == "no sign of rank 1"


@pytest.mark.parametrize("grace", ["0.4", "3"])
def test_what_stops_at_a_boundary_of_its_own_has_the_grace_period(
    tmp_path: Path, grace: str
) -> None:
    code, words, _ = ends(tmp_path, "deferred", grace)
    assert (code, words) == (75, "received SIGTERM")


def test_who_is_on_the_way_out_is_not_disturbed(tmp_path: Path) -> None:
    assert ends(tmp_path, "leaves", "20") == (3, "", "")
