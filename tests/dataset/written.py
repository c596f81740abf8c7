"""Rows as people write them, in each dialect, and the reading of one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from job.dataset import RejectedRow, Row, read_rows
from tests.dataset.standin import WEATHER, data_file, turn

U, A = turn("user", "Hello"), turn("assistant", "Hi.")


def messages(*turns: Any, **more: Any) -> dict[str, Any]:
    return {"messages": list(turns), **more}


def answered(*calls: Any, **more: Any) -> dict[str, Any]:
    """A row whose last turn makes these calls in the OpenAI form."""
    last = {"role": "assistant", "content": None, "tool_calls": list(calls)}
    return messages(turn("user", "Oslo?"), last, **({"tools": [WEATHER]} | more))


def called(arguments: Any, name: Any = "weather", **more: Any) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


def hermes(tools: list[Any], text: str, *more: dict[str, Any]) -> dict[str, Any]:
    """A row that declares its tools in the system turn and answers with `text`."""
    declared = "\n".join(map(json.dumps, tools))
    system = turn("system", f"<tools>\n{declared}\n</tools>")
    return messages(system, turn("user", "Oslo?"), turn("assistant", text), *more)


def call_text(arguments: Any, name: str = "weather") -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def shared(*turns: tuple[str, Any], **more: Any) -> dict[str, Any]:
    """A row in ShareGPT's form."""
    return {"conversations": [{"from": source, "value": value} for source, value in turns], **more}


def tool(parameters: Any, name: str = "weather") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


def read(folder: Path, line: dict[str, Any] | bytes) -> Row | RejectedRow:
    [row] = read_rows([data_file(folder / "data.jsonl", line)])
    return row


def accepted(folder: Path, line: dict[str, Any] | bytes) -> Row:
    row = read(folder, line)
    assert isinstance(row, Row), row.problems
    return row


def told(row: Row | RejectedRow) -> list[tuple[str, str]]:
    """Path and reason of each problem or warning."""
    found = row.warnings if isinstance(row, Row) else row.problems
    return [(problem.path, problem.reason) for problem in found]
