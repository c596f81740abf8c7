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
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from job.commands.arguments import parser
from job.errors import GateFailed, JobError, SettingsError, Stopped
from job.garbage import collect_rarely
from job.lifecycle import StopToken
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
    code = _COMMANDS[command](arguments)
    # Here, where it can still be told that nobody reads; no run ends by that.
    sys.stdout.flush()
    return code


def _launch_or_run() -> int:
    """Signals are handled before it is known what to start: to count cards takes seconds."""
    stop = StopToken()
    try:
        stop.install()
        return _launched(stop)
    except (SettingsError, Stopped) as error:
        print(f"{error.title}: {error}", file=sys.stderr)
        _write_termination_message(error.exit_code, f"{error.title}: {error}", {})
        return error.exit_code


def _launched(stop: StopToken) -> int:
    from job.ranks.launch import launch, wanted

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
        code, message = JobError.exit_code, f"unexpected error: {type(error).__name__}: {error}"
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

        return _said(run_job(settings, stop=stop, context=context, watch=watch))
    from job.distributed.rank import run_together

    result = run_together(settings, place, stop=stop, context=context, watch=watch)
    return result if isinstance(result, str) else _said(result)


def _said(result: RunResult) -> str:
    return f"succeeded: step {result.step}, adapter at {result.adapter_uri}"


def _validate(arguments: argparse.Namespace) -> int:
    from job.config import load_settings
    from job.logs import configure

    configure("auto", os.environ.get("FORGE_RUN_ID"))
    from job.preflight.validate import refused, render, validate

    try:
        validation = validate(load_settings(), arguments.report_to, arguments.gpu_memory)
    except JobError as error:
        print(error, file=sys.stderr)
        validation = refused(error)
        if not arguments.json:
            return validation.exit_code
    print(json.dumps(validation.as_json()) if arguments.json else render(validation))
    return validation.exit_code


def _doctor(arguments: argparse.Namespace) -> int:
    from job.logs import configure

    configure("auto", os.environ.get("FORGE_RUN_ID"))
    from job.preflight.checks import exit_code, lines
    from job.preflight.doctor import doctor

    checks = doctor(gpu=not arguments.no_gpu)
    as_json = json.dumps([check.as_dict() for check in checks])
    print(as_json if arguments.json else "\n".join(lines(checks)))
    return exit_code(checks)


def _mirror(arguments: argparse.Namespace) -> int:
    from job.logs import configure

    configure("auto", None)
    from job.engines.source import mirror

    try:
        size = mirror(arguments.model, arguments.uri)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    print(f"{arguments.uri} holds {arguments.model} ({size / 1e9:.2f} GB): FORGE_MODEL may name it")
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    from job.logs import configure

    configure("auto", None)
    stop = StopToken()
    stop.install()
    try:
        return _judged(arguments, stop)
    except (JobError, Stopped) as error:
        print(f"{error.title}: {error}", file=sys.stderr)
        return error.exit_code


def _judged(arguments: argparse.Namespace, stop: StopToken) -> int:
    from job.commands.cli import deliver
    from job.commands.evaluate import Asked, judge, lines, rows_to_judge
    from job.evaluation.endpoint import Endpoint
    from job.promotion.gate import Gate

    gate = Gate(arguments.min_exact, arguments.min_gain)
    if arguments.min_gain is not None and arguments.base_model is None:
        raise SettingsError("--min-gain: there is nothing to gain over without --base-model")
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    if arguments.api_key_env and not key:
        raise SettingsError(f"--api-key-env: {arguments.api_key_env} is not set")
    asked = Asked(arguments.model, arguments.base_model, arguments.concurrency, arguments.seconds)
    rows = rows_to_judge(arguments.dataset, arguments.max_rows)
    limit = arguments.max_tokens
    with closing(Endpoint(arguments.endpoint, key, stop.pause, max_new_tokens=limit)) as endpoint:
        found = judge(rows, endpoint, asked, stop)
    as_json = arguments.json or arguments.output
    deliver((json.dumps(found) if as_json else "\n".join(lines(found))) + "\n", arguments.output)
    if failure := gate.verdict(found):
        raise GateFailed(failure)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from job.commands.cli import status_command

    return status_command(arguments)


def _plan(arguments: argparse.Namespace) -> int:
    from job.commands.cli import plan_command

    return plan_command(arguments)


def _demo(arguments: argparse.Namespace) -> int:
    from job.demo.demo import demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    try:
        return demo(arguments.output)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code


_COMMANDS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "validate": _validate,
    "doctor": _doctor,
    "status": _status,
    "plan": _plan,
    "mirror": _mirror,
    "evaluate": _evaluate,
    "demo": _demo,
}


def _write_termination_message(code: int, message: str, progress: Mapping[str, Any]) -> None:
    """One line for `kubectl describe pod`, `exit CODE: why | {"step": …}`, the JSON being whole
    and what `/progress` says; only where the kubelet has put the file."""
    from job.redact import redact

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # one line a pod: that of its first rank
    path = Path(os.environ.get("FORGE_TERMINATION_LOG") or _DEFAULT_TERMINATION_LOG)
    line = redact(f"exit {code}: " + " ".join(message.split()))
    ending = f" | {json.dumps(progress, separators=(',', ':'))}\n" if progress else "\n"
    room = _TERMINATION_BYTES - len(ending.encode())
    data = line.encode(errors="replace")[:room].decode(errors="ignore") + ending
    if path.exists():
        try:
            path.write_text(data, encoding="utf-8")
        except OSError as error:
            logging.getLogger("job").warning("no termination message: %s", error)


def _exit(code: int) -> NoReturn:
    """End now. An upload that hangs in a dead network would hold an ordinary exit up (pools of
    threads are joined), past the grace period; all that matters is recorded by here."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with suppress(BrokenPipeError):
            stream.flush()
    os._exit(code)


def cli() -> NoReturn:
    """The console script `forge-job`. Of one whose reader has gone (`| head`) the shell hears what
    it hears of any other program."""
    collect_rarely()
    try:
        code = main()
    except BrokenPipeError:
        code = 128 + signal.SIGPIPE
    _exit(code)


if __name__ == "__main__":
    cli()
