"""One record of the leaderboard as one Hermes row: system with the tools, user, answer."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

from jsonschema_rs import Draft202012Validator

from job.demo.schema import UnknownType, first_accepted, json_schema

SYSTEM_PROMPT: Final = (
    "Answer with the tool calls that the request needs, each as\n"
    '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>\n'
    "or say that no tool fits."
)
"""Short on purpose: it is part of every row, and every token of it costs time on a CPU."""

_REFUSALS: Final = (
    "None of the available tools can do this.",
    "I can't do this: no available tool fits the request.",
    "No available tool fits this request.",
)


class Unusable(Exception):
    """This record can't be a row: why, in words that several records share, and the detail."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


def hermes_row(category: str, question: dict[str, Any], answer: list[Any]) -> dict[str, Any]:
    """The row of a question and its accepted calls (none where no tool fits).

    Raises `Unusable`.
    """
    tools = _tools(question["function"])
    expects_call = not category.endswith("irrelevance")
    if expects_call and not answer:
        raise Unusable("no accepted answer")
    calls = [_call(tools, name, given) for call in answer for name, given in call.items()]
    reply = "\n".join(map(tool_call, calls)) if expects_call else refusal(question["id"])
    return {
        "id": question["id"],
        "source": f"bfcl_v4/{category}",
        "scenario": ("parallel_calls" if len(calls) > 1 else "single_call") if calls else "no_tool",
        "tool_name": calls[0]["name"] if calls else None,
        "messages": [
            *_conversation(question["question"], tools),
            {"role": "assistant", "content": reply},
        ],
    }


def _tools(functions: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    if not functions:
        raise Unusable("no tool declared")
    try:
        return {
            function["name"]: {**function, "parameters": json_schema(function["parameters"])}
            for function in functions
        }
    except UnknownType as error:
        raise Unusable("unknown type in a schema", str(error)) from None


def _conversation(turns: list[list[dict[str, str]]], tools: dict[str, Any]) -> list[dict[str, str]]:
    """System message with the tools, then the turns before the answer."""
    messages = [message for turn in turns for message in turn]
    system = [SYSTEM_PROMPT]
    if messages and messages[0]["role"] == "system":
        system.append(messages.pop(0)["content"])
    expected = [("user", "assistant")[i % 2] for i in range(len(messages))]
    if [message["role"] for message in messages] != expected or len(messages) % 2 == 0:
        raise Unusable("turns don't alternate", " ".join(m["role"] for m in messages))
    lines = [
        json.dumps(
            {"type": "function", "function": tool}, ensure_ascii=False, separators=(",", ":")
        )
        for tool in tools.values()
    ]
    content = "\n".join([*system, "<tools>", *lines, "</tools>"])
    return [
        {"role": "system", "content": content},
        *({"role": message["role"], "content": message["content"]} for message in messages),
    ]


def _call(tools: dict[str, Any], name: str, accepted: dict[str, Any]) -> dict[str, Any]:
    if name not in tools:
        raise Unusable("answer calls an undeclared tool", name)
    schema = tools[name]["parameters"]
    undeclared = set(accepted) - set(schema.get("properties", {}))
    if undeclared:
        raise Unusable("answer has an undeclared argument", ", ".join(sorted(undeclared)))
    arguments = first_accepted(accepted, schema)
    error = next(iter(Draft202012Validator(schema).iter_errors(arguments)), None)
    if error is not None:
        path = ".".join(map(str, error.instance_path))
        raise Unusable("answer contradicts the schema", f"{path}: {error.message}")
    return {"name": name, "arguments": arguments}


def tool_call(call: dict[str, Any]) -> str:
    """A call's `name` and `arguments` as an assistant writes them."""
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def refusal(row_id: str) -> str:
    """What to say where no tool fits: one of a few sentences, the same at every call."""
    return _REFUSALS[int(digest(row_id), 16) % len(_REFUSALS)]


def digest(text: str) -> str:
    """A fixed hash of `text`, to choose by."""
    return hashlib.sha256(text.encode()).hexdigest()
