"""Log lines as other processes see them: on stderr, as JSON or text, without secrets."""

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Any

import pytest

from job.redact import Redactor, redact

SECRETS = {
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
    "AWS_SESSION_TOKEN": "session-token-1",
    "HF_TOKEN": "hub-token-1",
    "HUGGING_FACE_HUB_TOKEN": "hub-token-2",
    "WANDB_API_KEY": "wandb-key-1",
    "MLFLOW_TRACKING_PASSWORD": 'pass"word\\1',
    "VENDOR_SECRET": "vendor secret ü",
}


def run(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`code` in a process of its own, with its streams captured."""
    code = f"import logging, sys, warnings\nfrom job.logs import ProgressBar, configure\n{code}"
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=True,
    )


def lines(code: str, **environ: str) -> list[dict[str, Any]]:
    done = run(f"context = configure('json', 'run-1')\n{code}", **environ)
    assert done.stdout == ""
    return [json.loads(line, parse_constant=pytest.fail) for line in done.stderr.splitlines()]


def test_a_json_line_says_when_what_and_where() -> None:
    (line,) = lines(
        "context.update(step=7, attempt=2)\n"
        "logging.getLogger('job.x').info('step %d done', 7,"
        " extra={'fields': {'loss': 0.5, 'bad': float('nan'), 'big': 2**70, 'run_id': 'other'}})"
    )
    assert line.pop("time").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "job.x",
        "message": "step 7 done",
        "run_id": "run-1",
        "attempt": 2,
        "step": 7,
        "loss": 0.5,
        "bad": None,
        "big": str(2**70),
    }


def test_step_and_attempt_are_null_before_they_are_known() -> None:
    (line,) = lines("logging.info('hello')")
    assert (line["step"], line["attempt"], line["run_id"]) == (None, None, "run-1")


def test_an_exception_is_one_line() -> None:
    (line,) = lines("try: 1/0\nexcept ZeroDivisionError: logging.exception('oh\\nno')")
    assert line["message"] == "oh\nno"
    assert line["exception"].endswith("ZeroDivisionError: division by zero")


def test_warnings_and_dying_threads_become_lines() -> None:
    first, second = lines(
        "import threading\n"
        "warnings.warn('old thing')\n"
        "def die(): raise ValueError('hub-token-1')\n"
        "thread = threading.Thread(target=die, name='worker'); thread.start(); thread.join()",
        HF_TOKEN="hub-token-1",
    )
    assert (first["logger"], "old thing" in first["message"]) == ("py.warnings", True)
    assert second["message"] == "thread worker died"
    assert second["exception"].endswith("ValueError: ***")


def test_wrong_arguments_lose_no_line_and_no_secret() -> None:
    (line,) = lines("logging.info('%d steps', 'hub-token-1')", HF_TOKEN="hub-token-1")
    assert line["message"] == "%d steps ('***',)"


def test_what_is_no_text_is_logged_all_the_same() -> None:
    (line,) = lines("logging.info('file %s', 'a\\udcff', extra={'fields': {'o': object, 2: {1}}})")
    assert line["message"] == "file a\\udcff"
    assert (line["o"], line["2"]) == ("<class 'object'>", [1])


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_no_secret_of_the_environment_reaches_the_log(log_format: str) -> None:
    done = run(
        f"import os\nfrom urllib.parse import quote\nconfigure({log_format!r}, 'r')\n"
        f"for name in {sorted(SECRETS)}:\n"
        "  secret = os.environ[name]\n"
        "  logging.info('message ' + secret)\n"
        "  logging.info('argument %r of %s', secret, {'k': [secret]})\n"
        "  logging.info('extra', extra={'fields': {secret: {'deep': (secret,)}}})\n"
        "  logging.info('https://host/?q=' + quote(secret, safe=''))\n"
        "  try: raise RuntimeError(secret)\n"
        "  except RuntimeError: logging.exception('exception')\n",
        **SECRETS,
    )
    assert done.stderr.count("***") >= 5 * len(SECRETS)
    for part in ("wJalr", "token-", "wandb-key", "pass", "word", "vendor%20", "vendor secret"):
        assert part not in done.stderr


def test_libraries_log_through_us_even_when_imported_later() -> None:
    found = lines(
        "from transformers.utils import logging as theirs\n"
        "theirs.get_logger('transformers.x').warning('from transformers')\n"
        "theirs.get_logger('transformers.x').info('too quiet')\n"
        "for name in ('botocore.auth', 'urllib3.connectionpool', 'httpx', 'datasets.x'):\n"
        "  logging.getLogger(name).info('too quiet')\n"
        "logging.getLogger('datasets').addHandler(logging.StreamHandler())\n"
        "logging.getLogger('datasets').propagate = False\n"
        "logging.getLogger('datasets.x').warning('from datasets')\n"
    )
    said = [(line["logger"], line["message"]) for line in found]
    assert said == [("transformers.x", "from transformers"), ("datasets.x", "from datasets")]


def test_libraries_imported_before_are_adopted() -> None:
    done = run(
        "from transformers.utils import logging as theirs\n"
        "logger = theirs.get_logger('transformers.x')\n"
        "configure('json', 'r')\n"
        "logger.warning('once')"
    )
    assert [json.loads(line)["message"] for line in done.stderr.splitlines()] == ["once"]


def test_text_has_step_fields_and_no_control_characters() -> None:
    done = run(
        "context = configure('text', 'run-1'); context.update(step=3)\n"
        "logging.info('clear \\x1b[2J me', extra={'fields': {'loss': 0.5}})"
    )
    assert done.stderr.endswith(" INFO    [step 3] clear \\x1b[2J me loss=0.5\n")


def test_text_names_the_rank_where_there_are_several() -> None:
    done = run(
        "context = configure('text', 'run-1'); context.update(rank=1)\n"
        "logging.info('before'); context.update(step=3); logging.info('in training')"
    )
    first, second = done.stderr.splitlines()
    assert first.endswith(" INFO    [rank 1] before")
    assert second.endswith(" INFO    [rank 1, step 3] in training")


def test_auto_is_json_off_a_terminal() -> None:
    done = run("context = configure('auto', 'r'); logging.info('x'); print(context.interactive)")
    assert json.loads(done.stderr)["message"] == "x"
    assert done.stdout == "False\n"


def test_no_bar_off_a_terminal() -> None:
    done = run(
        "context = configure('auto', 'r')\n"
        "with ProgressBar(10, enabled=context.interactive) as bar: bar.update(5, loss=1.0)"
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_terminal_gets_text_with_a_bar_below_the_lines() -> None:
    code = (
        "import logging\nfrom job.logs import ProgressBar, configure\n"
        "context = configure('auto', 'r')\n"
        "with ProgressBar(10, initial=4, enabled=context.interactive) as bar:\n"
        "  bar.update(5, loss=1.23456)\n"
        "  logging.info('a line')\n"
        "  bar.update(10, loss=0.5)\n"
    )
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 100, 0, 0))
    process = subprocess.Popen([sys.executable, "-c", code], stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:  # how Linux says that the other end is closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    text = shown.decode()
    assert "INFO    a line\r\n" in text
    assert "10/10" in text
    assert "loss=0.5000" in text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://me:pass@host/x", "http://***@host/x"),
        ("http://me:p@ss@host:9091", "http://***@host:9091"),
        ("http://me:p/a#s?s@host:9091/x", "http://***@host:9091/x"),
        ("http://me:p@s/s@host:9091", "http://***@host:9091"),
        ("http://host:9091/models/m@v1", "http://host:9091/models/m@v1"),
        ("s3://bucket/key@v1", "s3://bucket/key@v1"),
        ("hub hf_AbCdEfGhIjKlMnOpQrSt!", "hub ***!"),
        (
            "AKIAIOSFODNN7EXAMPLE wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            "AKIAIOSFODNN7EXAMPLE ***",
        ),
        ("?X-Amz-Signature=abc123&x=1", "?X-Amz-Signature=***&x=1"),
        ("https://cdn/f?Expires=1&Signature=aB3~&x=1", "https://cdn/f?Expires=1&Signature=***&x=1"),
        ("{'Authorization': 'Bearer abc.def'}", "{'Authorization': 'Bearer ***'}"),
        ("loss 0.5 at step 7, sha256 " + "a" * 40, "loss 0.5 at step 7, sha256 " + "a" * 40),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, masked: str) -> None:
    assert redact(text) == masked


def test_short_and_other_variables_are_not_secrets() -> None:
    redactor = Redactor({"A_KEY": "short", "FORGE_RUN_ID": "a-long-run-id", "HF_TOKEN": ""})
    assert redactor.text("short a-long-run-id") == "short a-long-run-id"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("tok/en wörd9\n", "tok/en wörd9"),
        ("tok/en wörd9", "tok/en%20w%C3%B6rd9"),
        ("tok/en wörd9", "tok%2Fen+w%C3%B6rd9"),
        ("not-utf-8\udcff", "not-utf-8\udcff"),
        ("not-utf-8\udcff", "not-utf-8%FF"),
    ],
)
def test_a_secret_is_masked_in_every_form(value: str, said: str) -> None:
    assert Redactor({"A_TOKEN": value}).text(f"<{said}>") == "<***>"


def test_a_secret_inside_another_leaves_no_rest() -> None:
    redactor = Redactor({"A_KEY": "abcdefgh", "B_KEY": "abcdefghij"})
    assert redactor.text("abcdefghij") == "***"
