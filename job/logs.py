"""Log lines of a run: JSON for machines, text and a progress bar for people, secrets for nobody.

Logs and the progress bar go to stderr; results (`status`, the tables of `validate`) to stdout, so
that a pipe gets results only. Every line carries the run id, the attempt and the step. Secrets
are masked at the last moment, in the finished text, whichever library the line came from.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Final, Literal, TextIO, get_args

import orjson
from tqdm import tqdm

from job.redact import Redactor, redact
from job.terminal import harmless

__all__ = ["LogContext", "LogFormat", "ProgressBar", "configure", "redact"]

LogFormat = Literal["auto", "json", "text"]

_QUIET: Final = (
    "botocore",
    "boto3",
    "s3transfer",
    "urllib3",
    "httpx",
    "httpcore",
    "werkzeug",
    "mlflow",
    "wandb",
)
_SELF_WILLED: Final = ("transformers", "datasets", "huggingface_hub")
"""Libraries that put a handler of their own on their logger as soon as they are imported."""


class LogContext:
    """What every line says besides its message. The run and its callbacks keep it current."""

    def __init__(self, run_id: str | None, *, interactive: bool) -> None:
        self.run_id = run_id
        self.interactive = interactive
        """Whether a person watches a terminal: the progress bar is shown only then."""
        self.step: int | None = None
        self.attempt: int | None = None
        self.rank: int | None = None
        """None for a single process."""

    def update(
        self, *, step: int | None = None, attempt: int | None = None, rank: int | None = None
    ) -> None:
        self.rank = rank if rank is not None else self.rank
        self.step = step if step is not None else self.step
        self.attempt = attempt if attempt is not None else self.attempt


def configure(
    log_format: LogFormat, run_id: str | None = None, *, stream: TextIO | None = None
) -> LogContext:
    """Send all logging of this process to `stream` (stderr), warnings and dying threads included.

    `auto` is text on a terminal and JSON lines elsewhere. Raises `ValueError` for another format.
    """
    if log_format not in get_args(LogFormat):
        raise ValueError(f"unknown log format {log_format!r}")
    stream = stream if stream is not None else sys.stderr
    terminal = stream.isatty()
    as_text = log_format == "text" or (log_format == "auto" and terminal)
    context = LogContext(run_id, interactive=as_text and terminal)
    handler = _BarHandler(stream) if context.interactive else logging.StreamHandler(stream)
    redactor = Redactor(os.environ)
    formatter = _TextFormatter if as_text else _JsonFormatter
    handler.setFormatter(formatter(context, redactor))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.captureWarnings(True)
    threading.excepthook = _log_dying_thread
    _tame_libraries()
    return context


class _BarHandler(logging.StreamHandler[TextIO]):
    """Writes above the progress bar instead of through it."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=self.stream)
        except OSError:  # the terminal is gone; the run is not
            self.handleError(record)


class _JsonFormatter(logging.Formatter):
    def __init__(self, context: LogContext, redactor: Redactor) -> None:
        super().__init__()
        self._context = context
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC)
        line = {
            **_fields(record),
            "time": time.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "run_id": self._context.run_id,
            "attempt": self._context.attempt,
            "step": self._context.step,
        }
        if self._context.rank is not None:
            line["rank"] = self._context.rank
        if error := _exception(self, record):
            line["exception"] = error
        return orjson.dumps(self._redactor.plain(line)).decode()


class _TextFormatter(logging.Formatter):
    def __init__(self, context: LogContext, redactor: Redactor) -> None:
        super().__init__()
        self._context = context
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        told = {"rank": self._context.rank, "step": self._context.step}
        where = ", ".join(f"{name} {value}" for name, value in told.items() if value is not None)
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        line = f"{self.formatTime(record, '%H:%M:%S')} {record.levelname:<7} "
        line += f"{f'[{where}] ' if where else ''}{_message(record)}{fields}"
        if error := _exception(self, record):
            line += f"\n{error}"
        return harmless(self._redactor.text(line))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What the caller passed as `extra={"fields": {...}}`."""
    fields = getattr(record, "fields", None)
    return dict(fields) if isinstance(fields, Mapping) else {}


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except (TypeError, ValueError, KeyError):
        # logging itself would print the arguments to stderr, secrets and all.
        return f"{record.msg} {record.args!r}"


def _exception(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return formatter.formatException(record.exc_info) if record.exc_info else record.exc_text or ""


def _log_dying_thread(args: threading.ExceptHookArgs) -> None:
    name = args.thread.name if args.thread else "unknown"
    value = args.exc_value or args.exc_type()
    logging.getLogger(__name__).error(
        "thread %s died", name, exc_info=(args.exc_type, value, args.exc_traceback)
    )


class _Routed(logging.Logger):
    """The logger of a library that adds its own handler when imported: ours get its lines."""

    def addHandler(self, hdlr: logging.Handler) -> None:  # noqa: N802 - logging's name
        """Refused: the line would appear twice, once without run id and with its secrets."""

    # A property, so that the library's own `propagate = False` has no effect.
    propagate = property(lambda _self: True, lambda _self, _value: None)


def _tame_libraries() -> None:
    # Read by the libraries at import, after which their own level wins over ours.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "warning")
    os.environ.setdefault("DATASETS_VERBOSITY", "warning")
    os.environ.setdefault("HF_HUB_VERBOSITY", "warning")
    for name in (*_QUIET, *_SELF_WILLED):
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SELF_WILLED:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        if type(logger) is logging.Logger:
            logger.__class__ = _Routed


class ProgressBar:
    """Step, total, rate, ETA and loss on a terminal's last line; nothing where `enabled` is not.

    Use as a context manager. `initial` is the step a resumed run starts from.
    """

    def __init__(self, total: int, *, initial: int = 0, enabled: bool) -> None:
        self._bar: tqdm[Any] = tqdm(
            total=total,
            initial=initial,
            disable=not enabled,
            desc="training",
            unit="step",
            dynamic_ncols=True,
            file=sys.stderr,
        )

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def update(self, step: int, *, loss: float | None = None) -> None:
        """The run has finished optimizer step `step`."""
        if loss is not None:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
        self._bar.update(step - self._bar.n)
