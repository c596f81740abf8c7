"""Real signals to real processes, and the token that they set."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from job.errors import Diverged, Fenced, Preempted, Unavailable
from job.lifecycle import StopToken
from tests.ledger.wrapped import wait_until

ROOT = Path(__file__).resolve().parent.parent

PRELUDE = """
import sys, threading, time
from job.errors import *
from job.lifecycle import StopToken

def say(*words):
    print(*words, flush=True)

def hear():
    assert sys.stdin.readline()

def wait_for(condition):
    while not condition():
        time.sleep(0.005)

stop = StopToken(grace_seconds=3600)
stop.install()
"""


class Process:
    """A script that speaks over its pipes: no test waits for a time."""

    def __init__(self, script: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr
            raise AssertionError(self._process.stderr.read())
        return line.strip()

    def say(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("go on\n")
        self._process.stdin.flush()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self._process.send_signal(number)

    def end(self) -> tuple[str, int]:
        """What else it said, and its exit code."""
        out, errors = self._process.communicate(timeout=60)
        assert "Traceback" not in errors, errors
        return out.strip(), self._process.returncode


# -- signals --------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_outside_of_deferred_a_signal_ends_the_work_at_once(number: signal.Signals) -> None:
    process = Process(
        """
        try:
            say("ready")
            threading.Event().wait()
        except Exception:
            say("swallowed")
        except Preempted as error:
            say(error, stop.requested, stop.signalled, stop.cause is error)
            sys.exit(error.exit_code)
        """
    )
    assert process.hear() == "ready"
    process.signal(number)
    assert process.end() == (f"received {number.name} True True True", 75)


def test_another_thread_that_wakes_the_work_ends_it_as_no_signal_does() -> None:
    process = Process(
        """
        import signal
        from job.lifecycle import WAKE

        def ask():
            stop.request(Unavailable("down"))
            signal.pthread_kill(threading.main_thread().ident, WAKE)

        try:
            threading.Timer(0.1, ask).start()
            threading.Event().wait()
        except Unavailable as error:
            say(error, stop.requested, stop.signalled)
        """
    )
    assert process.end() == ("down True False", 0)


def test_inside_of_deferred_it_only_sets_the_flag() -> None:
    process = Process(
        """
        with stop.deferred():
            with stop.deferred():
                say("ready")
                wait_for(lambda: stop.requested)
            say("still deferred", stop.cause)
            hear()
            try:
                stop.check()
            except Preempted as error:
                say("checked", error)
        """
    )
    assert process.hear() == "ready"
    process.signal()
    assert process.hear() == "still deferred received SIGTERM"
    process.say()
    assert process.end() == ("checked received SIGTERM", 0)


def test_a_second_signal_changes_nothing() -> None:
    process = Process(
        """
        seen = []
        try:
            say("ready")
            threading.Event().wait()
        except Preempted as error:
            left = stop.seconds_left()
            say("saving")
            hear()
            say(error, stop.cause is error, stop.seconds_left() <= left)
        """
    )
    assert process.hear() == "ready"
    process.signal(signal.SIGTERM)
    assert process.hear() == "saving"
    process.signal(signal.SIGINT)
    process.signal(signal.SIGTERM)
    process.say()
    assert process.end() == ("received SIGTERM True True", 0)


def test_a_second_signal_raises_nothing_after_the_deferred_part_either() -> None:
    process = Process(
        """
        with stop.deferred():
            say("ready")
            wait_for(lambda: stop.requested)
        say("left")
        hear()
        say("undisturbed")
        """
    )
    assert process.hear() == "ready"
    process.signal()
    assert process.hear() == "left"
    process.signal()
    process.say()
    assert process.end() == ("undisturbed", 0)


def test_a_signal_delivers_a_failure_that_nobody_has_looked_at_yet() -> None:
    """The first cause wins, and yet the process ends while there is time."""
    process = Process(
        """
        thread = threading.Thread(target=lambda: stop.request(Unavailable("the store is down")))
        thread.start()
        thread.join()
        try:
            say("ready", stop.signalled)
            threading.Event().wait()
        except Unavailable as error:
            say(error, stop.cause is error, stop.signalled)
        """
    )
    assert process.hear() == "ready False"
    process.signal()
    assert process.end() == ("the store is down True True", 0)


def test_a_signal_does_not_disturb_a_failure_on_its_way_out() -> None:
    process = Process(
        """
        stop.request(Diverged("loss is nan"))
        try:
            stop.check()
        except Diverged as error:
            say("ready")
            wait_for(lambda: stop.signalled)
            say(error, stop.cause is error)
        """
    )
    assert process.hear() == "ready"
    process.signal()
    assert process.end() == ("loss is nan True", 0)


def test_uninstalled_a_signal_does_what_it_always_did() -> None:
    process = Process(
        """
        stop.uninstall()
        say("ready")
        threading.Event().wait()
        """
    )
    assert process.hear() == "ready"
    process.signal()
    assert process.end() == ("", -signal.SIGTERM)


def test_deferred_ends_with_its_block_even_when_that_fails() -> None:
    process = Process(
        """
        try:
            with stop.deferred():
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        try:
            say("ready")
            threading.Event().wait()
        except Preempted:
            say("at once")
        """
    )
    assert process.hear() == "ready"
    process.signal()
    assert process.end() == ("at once", 0)


IMPORTED = """
    import signal

    def leave(error):
        say(type(error).__name__, error, error is stop.cause)
        sys.exit(error.exit_code)

    class Interrupted:
        def __set_name__(self, owner, name):
            signal.raise_signal(signal.SIGTERM)

    def load():
        try:
            class Config:
                field = Interrupted()
        except Exception as error:
            raise ModuleNotFoundError("could not import Config") from error
        except BaseException as error:  # since Python 3.12 it comes as it is
            raise ModuleNotFoundError("could not import Config") from error
"""


def test_an_import_that_a_signal_cut_short_is_the_signal_and_no_failed_import() -> None:
    process = Process(
        textwrap.dedent(IMPORTED)
        + """
try:
    with stop.told_apart():
        load()
except Exception as error:
    say("failed", repr(error))
except Preempted as error:
    leave(error)
"""
    )
    assert process.end() == ("Preempted received SIGTERM True", 75)


@pytest.mark.parametrize("requested", [False, True])
def test_an_error_beside_the_stop_stays_what_it_is(requested: bool) -> None:
    stop, unrelated = StopToken(), Unavailable("down")
    if requested:
        stop.request(Preempted())
    with pytest.raises(Unavailable) as caught, stop.told_apart():
        raise unrelated
    assert caught.value is unrelated


def test_what_was_raised_in_place_of_the_stop_on_purpose_is_left_alone() -> None:
    stop = StopToken()
    stop.request(Preempted())

    def told_by_rank_0() -> None:
        try:
            stop.check()
        except Preempted:
            raise Diverged("nan") from None

    with pytest.raises(Diverged), stop.told_apart():
        told_by_rank_0()


def test_reasons_that_go_in_a_circle() -> None:
    first, second = Unavailable("a"), Unavailable("b")
    first.__cause__, second.__cause__ = second, first
    with pytest.raises(Unavailable), StopToken().told_apart():
        raise first


# -- the token ------------------------------------------------------------------------------------


def test_nobody_asked() -> None:
    stop = StopToken(grace_seconds=30)
    stop.check()
    assert (stop.requested, stop.cause, stop.signalled) == (False, None, False)
    assert stop.seconds_left() == 30


def test_a_thread_asks_and_the_work_is_told_at_its_next_check() -> None:
    stop = StopToken()
    cause = Fenced("attempt 2")
    thread = threading.Thread(target=lambda: stop.request(cause))
    thread.start()
    thread.join()
    assert (stop.requested, stop.signalled) == (True, False)
    for _ in range(2):
        with pytest.raises(Fenced) as caught:
            stop.check()
        assert caught.value is cause


def test_the_first_cause_wins() -> None:
    stop = StopToken()
    first = Unavailable("down")
    stop.request(first)
    stop.request(Preempted("later"))
    assert stop.cause is first


def test_of_many_threads_one_wins() -> None:
    stop, together = StopToken(), threading.Barrier(8)
    causes = [Preempted(str(n)) for n in range(8)]

    def ask(cause: Preempted) -> None:
        together.wait()
        stop.request(cause)

    threads = [threading.Thread(target=ask, args=(cause,)) for cause in causes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner = stop.cause
    assert any(winner is cause for cause in causes)
    stop.request(Preempted("late"))
    assert stop.cause is winner


def test_the_grace_period_runs_from_the_first_request() -> None:
    stop = StopToken(grace_seconds=3600)
    stop.request(Preempted())
    before = stop.seconds_left()
    assert 0 < before <= 3600
    wait_until(lambda: stop.seconds_left() < before)
    later = stop.seconds_left()
    stop.request(Preempted())
    assert stop.seconds_left() <= later


def test_the_grace_period_never_gets_negative() -> None:
    stop = StopToken(grace_seconds=0.001)
    stop.request(Preempted())
    wait_until(lambda: stop.seconds_left() == 0.0)
