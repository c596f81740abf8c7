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
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

from job.arguments import parser
from job.errors import GateFailed, JobError, SettingsError, Stopped
from job.lifecycle import StopToken
from job.overdue import Watch

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
    if command == "validate":
        return _validate(arguments)
    if command == "doctor":
        return _doctor(arguments)
    if command == "status":
        return _status(arguments)
    if command == "plan":
        return _plan(arguments)
    if command == "mirror":
        return _mirror(arguments)
    if command == "evaluate":
        return _evaluate(arguments)
    return _demo(arguments)


def _launch_or_run() -> int:
    from job.ranks.launch import launch, wanted

    try:
        node = wanted(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        _write_termination_message(error.exit_code, f"{error.title}: {error}", {})
        return error.exit_code
    if node is None:
        return _run()
    code, said = launch(node)
    if said:
        _write_termination_message(code, said, {})
    return code


def _run() -> int:
    stop = StopToken()
    watch = Watch(stop, lambda cause: _leave(cause, watch.progress()))
    try:
        stop.install()
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
    """The main thread does not end by itself: see `job.overdue`."""
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
    from job.together import run_together

    result = run_together(settings, place, stop=stop, context=context, watch=watch)
    return result if isinstance(result, str) else _said(result)


def _said(result: RunResult) -> str:
    return f"succeeded: step {result.step}, adapter at {result.adapter_uri}"


def _validate(arguments: argparse.Namespace) -> int:
    from job.config import load_settings
    from job.logs import configure

    configure("auto", os.environ.get("FORGE_RUN_ID"))
    from job.validate import refused, render, validate

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
    from job.checks import exit_code, lines
    from job.doctor import doctor

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
    from job.evaluation.endpoint import Endpoint
    from job.gate import Gate
    from job.judge import Asked, judge, lines, rows_to_judge

    gate = Gate(arguments.min_exact, arguments.min_gain)
    if arguments.min_gain is not None and arguments.base_model is None:
        raise SettingsError("--min-gain: there is nothing to gain over without --base-model")
    key = os.environ.get(arguments.api_key_env) if arguments.api_key_env else None
    if arguments.api_key_env and not key:
        raise SettingsError(f"--api-key-env: {arguments.api_key_env} is not set")
    asked = Asked(arguments.model, arguments.base_model, arguments.concurrency, arguments.seconds)
    rows = rows_to_judge(arguments.dataset, arguments.max_rows)
    endpoint = Endpoint(arguments.endpoint, key, stop.pause, max_new_tokens=arguments.max_tokens)
    found = judge(rows, endpoint, asked, stop)
    with _output(arguments.output) as out:
        as_json = arguments.json or arguments.output
        print(json.dumps(found) if as_json else "\n".join(lines(found)), file=out)
    if failure := gate.verdict(found):
        raise GateFailed(failure)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from job.status import status

    asked = (arguments.status, arguments.prefix, arguments.sort, arguments.columns)
    try:
        if arguments.all or any(asked):
            return _fleet(arguments)
        with _output(arguments.output) as out:
            return status(arguments.uri, as_json=arguments.json, watch=arguments.watch, out=out)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code


def _fleet(arguments: argparse.Namespace) -> int:
    from job.fleet import Selection, fleet_status

    if not arguments.all:
        raise SettingsError("--status, --prefix, --sort and --columns need --all")
    if arguments.watch:
        raise SettingsError("--watch is of one run: leave --all out, or run it in watch(1)")
    selection = Selection.of(arguments.status, arguments.sort or "status", arguments.columns)
    with _output(arguments.output) as out:
        return fleet_status(
            arguments.uri, selection, prefix=arguments.prefix, as_json=arguments.json, out=out
        )


def _plan(arguments: argparse.Namespace) -> int:
    from job.fleet.plan import plan, write
    from job.redact import redact

    try:
        runs = plan(arguments.runs, arguments.promote)
        if arguments.into is not None:
            write(runs, arguments.into)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.promote and any(run.never_promoted for run in runs):
        told = "no gate is set (FORGE_GATE_MIN_EXACT, FORGE_GATE_MIN_GAIN): not all can be promoted"
        print(told, file=sys.stderr)
    items = [run.as_item() for run in runs]
    lines = [redact(f"{item['run-id']}  {item['settings']}") for item in items]
    print(json.dumps(items) if arguments.json else "\n".join(lines))
    return 0


def _output(path: Path | None) -> AbstractContextManager[TextIO]:
    """Raises `SettingsError` where the file can't be written."""
    if path is None:
        return nullcontext(sys.stdout)
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"--output {path}: {error.strerror}") from error


def _demo(arguments: argparse.Namespace) -> int:
    from job.demo.demo import demo

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no process is left behind
    try:
        return demo(arguments.output)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code


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
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def cli() -> NoReturn:
    """The console script `forge-job`."""
    _exit(main())


if __name__ == "__main__":
    cli()
