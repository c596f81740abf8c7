"""`python -m job`: the commands, and the exit code and termination message of every end.

Signals are handled from the first moment, so nothing heavy is imported up here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Final, NoReturn

from job.commands.arguments import parser
from job.commands.output import complain, open_standard_streams
from job.errors import JobError, SettingsError, Stopped
from job.garbage import collect_rarely
from job.lifecycle import StopToken, told_apart
from job.watchdog import Watch

if TYPE_CHECKING:
    from job.run import RunResult

_TERMINATION_BYTES = 4096
"""The kubelet reads no more of a termination message."""

_DEFAULT_TERMINATION_LOG = "/dev/termination-log"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = parser().parse_args(argv)
    command = arguments.command or "run"
    if command == "run":
        return _launch_or_run()
    with _ended_by_sigterm():
        return _run_command(command, arguments)


def _launch_or_run() -> int:
    """Signals are handled before it is known what to start: to count cards takes seconds."""
    stop = StopToken()
    try:
        stop.install()
        with stop.told_apart():
            return _start(stop)
    except (SettingsError, Stopped) as error:
        return _end_early(error.exit_code, f"{error.title}: {error}")
    except Exception as error:
        logging.getLogger("job").debug("the workers can't be started", exc_info=True)
        return _end_early(JobError.exit_code, _unexpected(error))


def _end_early(code: int, message: str) -> int:
    complain(message)
    _write_termination_message(code, message, {})
    return code


def _unexpected(error: Exception) -> str:
    return f"{JobError.title}: {type(error).__name__}: {error}"


def _start(stop: StopToken) -> int:
    from job.ranks.launch import launch
    from job.ranks.node import wanted

    node = wanted(os.environ)
    if node is None:
        return _run(stop)
    code, said = launch(node)
    if said:
        _write_termination_message(code, said, {})
    return code


def _run(stop: StopToken) -> int:
    watch = Watch(stop, lambda cause: _leave(cause, watch.progress()))
    try:
        watch.begin()
        with stop.told_apart():
            result = _configured_run(stop, watch)
    except (JobError, Stopped) as error:
        stop.settle()
        code, message = error.exit_code, f"{error.title}: {error}"
        logging.getLogger("job").error("%s (exit code %d)", message, code)
    except MemoryError:
        stop.settle()
        code, message = JobError.exit_code, "out of memory"
        logging.getLogger("job").exception("out of memory")
    except Exception as error:
        stop.settle()
        code, message = JobError.exit_code, _unexpected(error)
        logging.getLogger("job").exception("unexpected error (exit code %d)", code)
    else:
        stop.settle()
        code, message = 0, result
    _write_termination_message(code, message, watch.progress())
    watch.end()
    return code


def _leave(cause: BaseException, progress: Mapping[str, Any] | None = None) -> NoReturn:
    """The main thread does not end by itself: see `job.watchdog`."""
    code = getattr(cause, "exit_code", JobError.exit_code)
    title = getattr(cause, "title", JobError.title)
    _write_termination_message(code, f"{title}: {cause}", progress or {})
    _exit(code)


def _configured_run(stop: StopToken, watch: Watch) -> str:
    from job.config import load_settings
    from job.logs import configure

    context = configure("auto", os.environ.get("FORGE_RUN_ID"))
    settings = load_settings()
    if settings.log_format != "auto":
        context = configure(settings.log_format, settings.run_id)

    from job.ranks import own_place

    place = own_place(os.environ)
    if place is None:
        from job.run import run_job

        return _success(run_job(settings, stop=stop, context=context, watch=watch))
    from job.distributed.rank import run_together

    result = run_together(settings, place, stop=stop, context=context, watch=watch)
    return result if isinstance(result, str) else _success(result)


def _success(result: RunResult) -> str:
    return f"succeeded: step {result.step}, adapter at {result.adapter_uri}"


def _run_command(command: str, arguments: argparse.Namespace) -> int:
    """The exit code of a command that is no run; its errors are told here."""
    try:
        with told_apart(lambda reason: isinstance(reason, (SystemExit, KeyboardInterrupt))):
            code: int = import_module(_COMMANDS[command]).command(arguments)
        # Here, where it can still be told that nobody reads; no run ends by that.
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (JobError, Stopped) as error:
        complain(f"{error.title}: {error}")
        return error.exit_code
    except Exception as error:
        logging.getLogger("job").debug("the command %s broke", command, exc_info=True)
        complain(_unexpected(error))
        return JobError.exit_code
    return code


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """By an exception, so that no process, thread or file is left behind. A run has its own way."""
    before = signal.signal(signal.SIGTERM, _on_sigterm)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_sigterm(number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one doesn't cut the cleaning up short
    sys.exit(128 + number)


_COMMANDS: Final[Mapping[str, str]] = {
    "validate": "job.commands.validate",
    "doctor": "job.commands.doctor",
    "status": "job.commands.status",
    "plan": "job.commands.plan",
    "mirror": "job.commands.mirror",
    "evaluate": "job.commands.evaluate",
    "demo": "job.demo.command",
}


def _write_termination_message(code: int, message: str, progress: Mapping[str, Any]) -> None:
    """One line for `kubectl describe pod`, `exit CODE: why | {"step": …}`, the JSON being whole
    and what `/progress` says; only where the kubelet has put the file."""
    from job.redact import redact
    from job.terminal import printable

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # one line a pod: that of its first rank
    path = Path(os.environ.get("FORGE_TERMINATION_LOG") or _DEFAULT_TERMINATION_LOG)
    line = printable(redact(f"exit {code}: " + " ".join(message.split())))
    ending = f" | {json.dumps(progress, separators=(',', ':'))}\n" if progress else "\n"
    room = _TERMINATION_BYTES - len(ending.encode())
    data = line.encode(errors="replace")[:room].decode(errors="ignore") + ending
    try:
        if path.exists():
            path.write_text(data, encoding="utf-8")
    except OSError as error:
        logging.getLogger("job").warning("no termination message: %s", error)


def _exit(code: int) -> NoReturn:
    """End now. An upload that hangs in a dead network would hold an ordinary exit up (pools of
    threads are joined), past the grace period; all that matters is recorded by here."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)


def cli() -> NoReturn:
    """The console script `forge-job`. Of one whose reader has gone (`| head`), or that the keyboard
    ended, the shell hears what it hears of any other program."""
    open_standard_streams()
    collect_rarely()
    try:
        code = main()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0
    _exit(code)


if __name__ == "__main__":
    cli()
