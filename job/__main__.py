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
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TextIO

from job.errors import JobError, SettingsError, Stopped
from job.lifecycle import StopToken
from job.overdue import Watch

if TYPE_CHECKING:
    from job.run import RunResult

_TERMINATION_BYTES = 4096
"""The kubelet reads no more of a termination message."""

_DEFAULT_TERMINATION_LOG = "/dev/termination-log"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    command = arguments.command or "run"
    if command == "run":
        return _launch_or_run()
    if command == "validate":
        return _validate(arguments)
    if command == "doctor":
        return _doctor(arguments)
    if command == "status":
        return _status(arguments)
    if command == "mirror":
        return _mirror(arguments)
    return _demo(arguments)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As any bad setting: argparse's own 2 is no code of ours."""
        self.print_usage(sys.stderr)
        self.exit(SettingsError.exit_code, f"{self.prog}: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="forge-job",
        description="Fine-tunes a model on tool-calling conversations. Configured by FORGE_* "
        "environment variables; without a command it runs the job.",
    )
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", help="the batch job (the default)")
    validate = commands.add_parser("validate", help="check everything that needs no GPU")
    validate.add_argument("--json", action="store_true", help="for machines")
    validate.add_argument(
        "--report-to", metavar="URI", help="put the data's report and mask preview there, too"
    )
    validate.add_argument(
        "--gpu-memory", metavar="GB", type=float, help="of the card that it has to fit"
    )
    doctor = commands.add_parser("doctor", help="can a run work on this node, in this image?")
    doctor.add_argument("--json", action="store_true", help="for machines")
    doctor.add_argument("--no-gpu", action="store_true", help="on a node that has none")
    mirror = commands.add_parser("mirror", help="bring a model into S3, for runs without a hub")
    mirror.add_argument("model", help="owner/name, owner/name@revision, or a folder")
    mirror.add_argument("uri", help="s3://bucket/prefix; what FORGE_MODEL is set to then")
    status = commands.add_parser("status", help="what a run's record says")
    status.add_argument("uri", help="<output>/<run id>")
    status.add_argument("--json", action="store_true", help="the record, for machines")
    status.add_argument("--watch", action="store_true", help="again and again until it ends")
    status.add_argument("--output", type=Path, metavar="FILE", help="instead of on stdout")
    demo = commands.add_parser("demo", help="the embedded run on this machine's CPU")
    demo.add_argument("--output", type=Path, default=Path("demo-output"), help="a copy of the run")
    return parser


def _launch_or_run() -> int:
    from job.ranks.launch import launch, wanted

    try:
        node = wanted(os.environ)
    except SettingsError as error:
        print(error, file=sys.stderr)
        _write_termination_message(error.exit_code, f"{error.title}: {error}")
        return error.exit_code
    if node is None:
        return _run()
    code, said = launch(node)
    if said:
        _write_termination_message(code, said)
    return code


def _run() -> int:
    stop = StopToken()
    watch = Watch(stop, _leave)
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
    _write_termination_message(code, message)
    watch.end()
    return code


def _leave(cause: BaseException) -> NoReturn:
    """The main thread does not end by itself: see `job.overdue`."""
    code = getattr(cause, "exit_code", JobError.exit_code)
    title = getattr(cause, "title", JobError.title)
    _write_termination_message(code, f"{title}: {cause}")
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


def _status(arguments: argparse.Namespace) -> int:
    from job.status import status

    try:
        with _output(arguments.output) as out:
            return status(arguments.uri, as_json=arguments.json, watch=arguments.watch, out=out)
    except JobError as error:
        print(error, file=sys.stderr)
        return error.exit_code


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


def _write_termination_message(code: int, message: str) -> None:
    """One line for `kubectl describe pod`; only where the kubelet has put the file."""
    from job.redact import redact

    if os.environ.get("LOCAL_RANK", "0") != "0":
        return  # one line a pod: that of its first rank
    path = Path(os.environ.get("FORGE_TERMINATION_LOG") or _DEFAULT_TERMINATION_LOG)
    line = redact(f"exit {code}: " + " ".join(message.split()))
    data = line.encode(errors="replace")[: _TERMINATION_BYTES - 1].decode(errors="ignore")
    if path.exists():
        try:
            path.write_text(data + "\n", encoding="utf-8")
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
