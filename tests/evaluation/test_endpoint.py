"""`evaluate` against a server over real HTTP, which answers well, badly, late or not at all."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from job.commands.arguments import parser
from job.commands.evaluate import judged, rows_to_judge
from job.dataset import Row
from job.errors import AccessDenied, DataError, SettingsError, Unavailable
from job.evaluation import endpoint as endpoint_module
from job.evaluation.document import Turn
from job.evaluation.endpoint import Endpoint, request_of
from job.lifecycle import StopToken
from tests.evaluation.chat import KEY, Server, evaluate, text
from tests.stages.test_held_out import begin
from tests.tiny import rows, write_rows


def turn() -> Turn:
    [row] = rows(1)
    return Turn(Row("x", 1, tuple(row["messages"])), 2)


def asked(server: Server, waits: list[float] | None = None) -> Any:
    pauses = waits if waits is not None else []
    with closing(Endpoint(server.url, KEY, pauses.append, max_new_tokens=50)) as endpoint:
        return endpoint.answer("m", turn())


def test_a_server_isjudged(server: Server, tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "rows.jsonl", 20), tmp_path / "out.json"
    more = ["--dataset", str(data), "--base-model", "base", "--output", str(out)]
    done = evaluate(server.url + "/v1/", *more, "--min-gain", "0.5")
    assert done.returncode == 0, done.stderr
    oslo = sum("Oslo" in row["messages"][1]["content"] for row in rows(20))
    found = json.loads(out.read_text())
    assert (found["rows"], found["stopped_by"]) == (20, None)
    assert found["adapter"]["exact"]["count"] == 20 - oslo
    assert found["base"]["exact"]["count"] == 0
    assert found["tools"]["get_weather"]["adapter"] == 20 - oslo
    assert len(server.requests) == 40
    assert {request["path"] for request in server.requests} == {"/v1/chat/completions"}
    assert {request["temperature"] for request in server.requests} == {0}
    assert server.keys == {f"Bearer {KEY}"}

    server.reply = lambda _body, _count: (200, text("I don't know."))
    failed = evaluate(server.url, "--dataset", str(data), "--max-rows", "5", "--min-exact", "1")
    assert failed.returncode == 80
    assert "5 of 5 turns judged" in failed.stdout
    assert "promotion gate failed: exactly right 0.0%, --min-exact is 100.0%" in failed.stderr


def test_all_rows_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 3)
    data.write_text(data.read_text() + '{"messages": []}\n[]\n')
    with pytest.raises(DataError) as error:
        rows_to_judge([str(data)], None)
    assert [problem.where for problem in error.value.problems] == [f"{data}:4", f"{data}:5"]
    assert len(rows_to_judge([str(data)], 3)) == 3


def test_no_connection_outlives_the_evaluation(server: Server, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 8)
    words = ["evaluate", "--endpoint", server.url, "--model", "m", "--dataset", str(data)]
    gc.disable()  # which would hide what is left open
    try:
        assert judged(parser().parse_args(words), StopToken()) == 0
        with server.connected:
            assert server.connected.wait_for(lambda: not server.connections, 10)
    finally:
        gc.enable()


def test_the_rows_are_those_that_the_run_holds_out(
    server: Server, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", 30)
    settings = {"RUN_ID": "r", "DATASET_URI": str(data), "OUTPUT_URI": str(tmp_path / "out")}
    for name, value in {**settings, "MODEL": str(tiny_model), "MODEL_FAMILY": "smollm2"}.items():
        monkeypatch.setenv(f"FORGE_{name}", value)
    done = evaluate(server.url, "--json")
    assert done.returncode == 0, done.stderr
    from job.config import load_settings

    held_out = rows_to_judge([], None)
    assert 0 < len(held_out) < 30
    assert load_settings().eval_fraction == 0.2
    users = {row.messages[1]["content"] for row in held_out}
    asked_for = {
        m["content"] for r in server.requests for m in r["messages"] if m["role"] == "user"
    }
    assert asked_for == users

    begin(load_settings(), tmp_path / "run")
    monkeypatch.setenv("FORGE_EVAL_FRACTION", "0.9")
    refused = evaluate(server.url)
    assert refused.returncode == 78
    assert "FORGE_EVAL_FRACTION: is 0.9, the run r has 0.2" in refused.stderr


@pytest.mark.parametrize(("status", "code"), [(401, 77), (403, 77), (404, 78), (400, 78)])
def test_refusals_have_their_exit_codes(
    server: Server, tmp_path: Path, status: int, code: int
) -> None:
    server.reply = lambda _body, _count: (status, {"error": f"no such thing; you sent {KEY}"})
    error = AccessDenied if code == 77 else SettingsError
    with pytest.raises(error) as caught:
        asked(server)
    assert caught.value.exit_code == code
    assert KEY not in str(caught.value)
    assert len(server.requests) == 1


def test_a_server_that_is_not_there_is_unavailable(server: Server, closed_port: int) -> None:
    waits: list[float] = []
    server.url = f"http://127.0.0.1:{closed_port}"
    with pytest.raises(Unavailable) as caught:
        asked(server, waits)
    assert len(waits) == 5
    assert caught.value.exit_code == 69


@pytest.mark.parametrize(
    "fault",
    [(429, {}), (500, {}), (503, b"<html>"), (200, b"{"), (200, {}), (200, {"choices": []})],
)
def test_faults_that_pass_are_waited_out(server: Server, fault: tuple[int, Any]) -> None:
    waits: list[float] = []
    server.reply = lambda _body, count: fault if count < 3 else (200, text("Well."))
    assert asked(server, waits).text == "Well."
    assert len(waits) == 3


def test_calls_come_as_tool_calls_too(server: Server) -> None:
    function = {"name": "f", "arguments": '{"a": 1}'}
    message = {"content": None, "tool_calls": [{"id": "1", "function": function}]}
    choice = {"message": message, "finish_reason": "tool_calls"}
    server.reply = lambda _body, _count: (200, {"choices": [choice]})
    assert asked(server).text == '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    function["arguments"] = '{"a": '
    assert '{"a": }' in asked(server).text
    function["arguments"] = ""
    assert asked(server).text == '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    server.reply = lambda _body, _count: (200, text("and on and on", "length"))
    assert asked(server).cut_off


def test_hermes_tools_travel_in_the_request() -> None:
    messages, tools = request_of(turn())
    assert [m["role"] for m in messages] == ["system", "user"]
    assert messages[0]["content"] == "Use the tools."
    assert [tool["function"]["name"] for tool in tools] == ["get_weather"]


def test_arguments_of_earlier_calls_are_strings() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    turns = ({"role": "assistant", "content": None, "tool_calls": [call]},)
    messages, _ = request_of(Turn(Row("x", 1, (*turns, {"role": "assistant", "content": "."})), 1))
    assert messages[0]["tool_calls"][0]["function"]["arguments"] == '{"a": 1}'


def test_calls_and_answers_without_ids_get_them() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": {}}}
    before: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [call, call]},
        {"role": "tool", "content": "1"},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": None, "tool_calls": [{**call, "id": "own"}]},
        {"role": "tool", "content": "3", "tool_call_id": "own"},
    ]
    messages, _ = request_of(Turn(Row("x", 1, (*before, {"role": "assistant", "content": "."})), 6))
    ids = [one["id"] for message in messages for one in message.get("tool_calls", ())]
    assert ids == ["call00100", "call00101", "own"]
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == ids
    assert messages[0] == before[0]


def test_retry_after_is_kept_to(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "_retry_after", lambda _response: 33.0)
    waits: list[float] = []
    server.reply = lambda body, count: (429, {}) if count < 1 else (200, text("ok"))
    asked(server, waits)
    assert waits == [33.0]


def test_sigterm_ends_it_while_a_server_takes_its_time(server: Server, tmp_path: Path) -> None:
    asked_for, released = threading.Event(), threading.Event()

    def late(_body: dict[str, Any], _count: int) -> tuple[int, Any]:
        asked_for.set()
        released.wait(100)
        return 200, text("Well.")

    server.reply = late
    data = write_rows(tmp_path / "rows.jsonl", 4)
    command = [sys.executable, "-m", "job", "evaluate", "--endpoint", server.url, "--model", "m"]
    with subprocess.Popen([*command, "--dataset", str(data)], stderr=subprocess.PIPE) as process:
        assert asked_for.wait(60)
        process.send_signal(signal.SIGTERM)
        try:
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
            released.set()
    assert process.returncode == 75
    assert b"received SIGTERM" in said
    assert b"Traceback" not in said


def test_bad_arguments(server: Server) -> None:
    assert evaluate(server.url, "--min-gain", "0.1").returncode == 78
