"""The command line: commands and their arguments. Nothing heavy is imported here."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import NoReturn

from job.errors import SettingsError


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """As any bad setting: argparse's own 2 is no code of ours."""
        self.print_usage(sys.stderr)
        self.exit(SettingsError.exit_code, f"{self.prog}: {message}\n")


def parser() -> argparse.ArgumentParser:
    """Of the whole command line."""
    made = _Parser(
        prog="forge-job",
        description="Fine-tunes a model on tool-calling conversations. Configured by FORGE_* "
        "environment variables; without a command it runs the job.",
    )
    commands = made.add_subparsers(dest="command")
    commands.add_parser("run", help="the batch job (the default)")
    validate = commands.add_parser("validate", help="check everything that needs no GPU")
    validate.add_argument("--json", action="store_true", help="print JSON")
    validate.add_argument(
        "--report-to", metavar="URI", help="also store the data report and the mask preview there"
    )
    validate.add_argument(
        "--gpu-memory", metavar="GB", type=float, help="memory of the GPU that the run has to fit"
    )
    doctor = commands.add_parser(
        "doctor", help="check whether a run can work on this node, in this image"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.add_argument(
        "--no-gpu", action="store_true", help="skip the GPU, on a node that has none"
    )
    mirror = commands.add_parser("mirror", help="copy a model into S3, for runs that reach no hub")
    mirror.add_argument("model", help="owner/name, owner/name@revision, or a folder")
    mirror.add_argument("uri", help="s3://bucket/prefix, which FORGE_MODEL is then set to")
    _add_evaluate(
        commands.add_parser("evaluate", help="judge a serving stack by the held-out rows")
    )
    status = commands.add_parser("status", help="show what the record of a run says")
    status.add_argument(
        "uri", type=_place, help="<output>/<run id>; with --all the <output> of many runs"
    )
    _add_fleet(status)
    status.add_argument("--json", action="store_true", help="print the record as JSON")
    status.add_argument("--watch", action="store_true", help="keep showing it until the run ends")
    status.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="write there instead of to stdout; a table of runs to both",
    )
    _add_plan(commands.add_parser("plan", help="make many runs from one JSON text, each checked"))
    demo = commands.add_parser("demo", help="run the embedded example on this machine's CPU")
    demo.add_argument(
        "--output", type=Path, default=Path("demo-output"), help="folder for a copy of the run"
    )
    return made


def _add_evaluate(evaluate: argparse.ArgumentParser) -> None:
    add = evaluate.add_argument
    add(
        "--endpoint", required=True, metavar="URL", help="server with OpenAI's chat completions API"
    )
    add("--model", required=True, help="name that the server has for the model")
    add("--base-model", metavar="NAME", help="model to compare with, on the same server")
    add(
        "--dataset",
        action="append",
        default=[],
        metavar="URI",
        help="judge by these rows instead of the run's",
    )
    add("--max-rows", type=_positive, metavar="N", help="judge by the first N rows")
    add("--max-tokens", type=_positive, default=512, metavar="N", help="most tokens of an answer")
    add("--api-key-env", metavar="VAR", help="environment variable that holds the API key")
    add("--concurrency", type=_positive, default=8, metavar="N", help="requests at once")
    add(
        "--seconds",
        type=_seconds,
        default=0.0,
        metavar="N",
        help="send no more requests after so long",
    )
    add("--json", action="store_true", help="print JSON")
    add("--output", type=Path, metavar="FILE", help="write the whole evaluation there, as JSON")
    add("--min-exact", type=_share, metavar="SHARE", help="0 to 1; with less the exit code is 80")
    add(
        "--min-gain", type=_gain, metavar="SHARE", help="-1 to 1, over the base; with less it is 80"
    )


def _place(uri: str) -> str:
    """As `FORGE_OUTPUT_URI` may spell it."""
    return uri.removeprefix("file://")


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return number


def _share(text: str) -> float:
    return _within(text, 0, 1, "a share from 0 to 1, such as 0.8 for 80%")


def _gain(text: str) -> float:
    return _within(text, -1, 1, "a share from -1 to 1, such as 0.05 for 5% more")


def _seconds(text: str) -> float:
    return _within(text, 0, sys.float_info.max, "a number of seconds, 0 for no limit")


def _within(text: str, least: float, most: float, wanted: str) -> float:
    """NaN is within nothing."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not {wanted}")
    return number


def _add_plan(plan: argparse.ArgumentParser) -> None:
    add = plan.add_argument
    add(
        "runs",
        metavar="RUNS",
        help="JSON: a list of settings, or lists to combine; or @FILE, or - for stdin, for more "
        "than the 128 KiB that an argument holds",
    )
    add("--promote", metavar="RULE", help="newest, best or never, for runs that name no rule")
    add("--json", action="store_true", help="print ids and values of FORGE_SETTINGS")
    add(
        "--into",
        type=Path,
        metavar="DIR",
        help="write runs.json, columns and ids there, for a workflow",
    )


def _add_fleet(status: argparse.ArgumentParser) -> None:
    fleet = status.add_argument_group("many runs")
    fleet.add_argument(
        "--all", action="store_true", help="show one line for each run below the URI"
    )
    fleet.add_argument(
        "--status",
        metavar="NAMES",
        default="",
        help="only runs in these states: running,failed,not started",
    )
    fleet.add_argument(
        "--prefix", metavar="TEXT", default="", help="only runs whose ids begin with this"
    )
    fleet.add_argument(
        "--runs",
        metavar="FILE",
        help="only the runs of plan's runs.json, or of ids, one a line; -: stdin",
    )
    fleet.add_argument(
        "--run-ids", metavar="IDS", help="only these runs, by ids in the argument itself"
    )
    fleet.add_argument("--sort", metavar="NAME", help="status, run_id, step, loss, exact, ...")
    fleet.add_argument(
        "--columns", metavar="NAMES", default="", help="settings to show, such as learning_rate"
    )
