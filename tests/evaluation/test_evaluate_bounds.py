"""`evaluate` whose time is over: what was asked is judged, whatever it takes; and its arguments."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from job.commands.arguments import parser
from job.commands.evaluate import judged
from job.dataset import Row
from job.errors import GateFailed, Unavailable
from job.evaluation.asking import Bounds, answers_to
from job.evaluation.document import Answer, Turn
from job.lifecycle import StopToken
from tests.evaluation.chat import KEY, Server, expected, text
from tests.tiny import rows, write_rows


class Hurried(StopToken):
    """Waits for nobody."""

    def pause(self, seconds: float) -> None:
        self.check()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", 40)


def judge(server: Server, data: Path, *more: str) -> int:
    words = ["evaluate", "--endpoint", server.url, "--model", "m", "--dataset", str(data), *more]
    return judged(parser().parse_args(words), Hurried())


def question(request: dict[str, Any]) -> str:
    return str(next(m["content"] for m in request["messages"] if m["role"] == "user"))


def test_turns_that_are_slow_to_be_answered_wrongly_count_when_time_is_over(
    server: Server, data: Path, tmp_path: Path
) -> None:
    wrong: list[int] = []

    def rambles(body: dict[str, Any], count: int) -> tuple[int, Any]:
        if count % 2:
            wrong.append(count)
            time.sleep(1)
            return 200, text("On and on", "length")
        return 200, text(expected(body))

    server.reply = rambles
    out = tmp_path / "out.json"
    assert judge(server, data, "--seconds", "0.3", "--output", str(out)) == 0
    found = json.loads(out.read_text())
    assert found["rows"] == len(server.requests) >= 8
    assert found["adapter"]["exact"]["count"] <= found["rows"] - len(wrong)
    assert found["stopped_by"] == "seconds" or found["rows"] == 40


def test_turns_are_asked_in_a_drawn_order_that_stays(server: Server, data: Path) -> None:
    orders = []
    for _ in range(2):
        server.requests.clear()
        assert judge(server, data, "--concurrency", "1") == 0
        orders.append([question(request) for request in server.requests])
    in_order = [row["messages"][1]["content"] for row in rows(40)]
    assert orders[0] == orders[1]
    assert sorted(orders[0]) == sorted(in_order)
    assert set(orders[0][:20]) != set(in_order[:20])


def test_a_server_that_never_answers_what_it_was_asked_is_no_server() -> None:
    [row] = rows(1)
    turns = [Turn(Row("x", n, tuple(row["messages"])), 2) for n in range(9)]
    released, asked = threading.Event(), list[Turn]()

    def ask(turn: Turn) -> list[Answer]:
        asked.append(turn)
        if len(asked) > 1:
            released.wait(100)
        return [Answer("")]

    try:
        with pytest.raises(Unavailable) as failed:
            answers_to(turns, ask, Bounds(4, seconds=0.01, patience=0.1), StopToken())
    finally:
        released.set()
    assert "turns that were asked have no answer 0.1 s after the end of --seconds" in str(
        failed.value
    )


@pytest.mark.parametrize("threshold", [[], ["--min-exact", "0.5"]])
def test_a_server_that_is_not_there_is_unavailable_also_when_time_is_over(
    server: Server,
    data: Path,
    threshold: list[str],
    capsys: pytest.CaptureFixture[str],
    closed_port: int,
) -> None:
    server.url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(Unavailable, match="ConnectError"):
        judge(server, data, "--seconds", "0.001", *threshold)
    assert "judged" not in capsys.readouterr().out


def test_nothing_to_judge_by_is_told_by_the_name_that_was_given(
    server: Server, tmp_path: Path
) -> None:
    """More turns than are asked at once, none of which expects a call."""
    data = tmp_path / "rows.jsonl"
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    several = [[{**messages[0], "content": f"Hi {n}"}, messages[1]] for n in range(9)]
    data.write_text("".join(json.dumps({"messages": made}) + "\n" for made in several))
    released = threading.Event()
    threading.Timer(0.3, released.set).start()
    server.reply = lambda _body, _count: (200, text(str(released.wait(100))))
    with pytest.raises(GateFailed, match="not applicable: --seconds was over"):
        judge(server, data, "--seconds", "0.001", "--min-exact", "0.5")


@pytest.mark.parametrize(
    ("argument", "value", "told"),
    [
        ("--min-exact", "nan", "is not a share from 0 to 1"),
        ("--min-exact", "-5", "is not a share from 0 to 1"),
        ("--min-exact", "80", "is not a share from 0 to 1, such as 0.8 for 80%"),
        ("--min-gain", "nan", "is not a share from -1 to 1"),
        ("--min-gain", "5", "is not a share from -1 to 1"),
        ("--seconds", "nan", "is not a number of seconds"),
        ("--seconds", "inf", "is not a number of seconds"),
        ("--seconds", "-1", "is not a number of seconds"),
        ("--seconds", "soon", "is not a number of seconds"),
        ("--max-rows", "0", "is not a whole number of 1 or more"),
        ("--concurrency", "x", "is not a whole number of 1 or more"),
    ],
)
def test_arguments_that_would_judge_nothing_are_refused(
    argument: str, value: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        parser().parse_args(["evaluate", "--endpoint", "http://x", "--model", "m", argument, value])
    assert refused.value.code == 78
    said = capsys.readouterr().err
    assert f"argument {argument}: {value!r} {told}" in said


def test_a_gain_below_none_is_an_argument() -> None:
    words = ["evaluate", "--endpoint", "x", "--model", "m", "--min-gain", "-0.5", "--seconds", "0"]
    assert parser().parse_args(words).min_gain == -0.5


@pytest.mark.parametrize("how", ["--json", "--output"])
def test_a_key_that_a_server_quotes_is_not_told(
    server: Server,
    data: Path,
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("OF_THE_SERVER", KEY)
    server.reply = lambda _body, _count: (200, text(f"You sent {KEY}"))
    out = tmp_path / "out.json"
    wanted = ["--json"] if how == "--json" else ["--output", str(out)]
    assert judge(server, data, "--max-rows", "2", "--api-key-env", "OF_THE_SERVER", *wanted) == 0
    said = capsys.readouterr().out if how == "--json" else out.read_text()
    assert json.loads(said)["examples"][0]["adapter"] == "You sent ***"
