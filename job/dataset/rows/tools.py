"""The tools that a conversation declares, beside its messages or in the text of its system turn.

Most rows of a file share them, so what was read once is kept, in bounded memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Set
from typing import Any, Final

import orjson

from job.dataset.recent import Recent
from job.dataset.rows.hermes import MAX_DEPTH, is_inexact, too_deep, tool_blocks, tools_of
from job.dataset.rows.plain import PLAIN_TOOLS, fits
from job.dataset.rows.repeats import DECODER, find_repeated, may_repeat, repeated_keys
from job.dataset.rows.row import Problems, Row
from job.dataset.rows.schema import Schema
from job.dataset.rows.words import brief, kind

MAX_TOOLS: Final = 4096

_KEPT_BYTES: Final = 4 * 1024 * 1024
"""Of tools as text; parsed they take some ten times as much, twice."""

_FORM: Final = 'write {"type": "function", "function": {"name": …, "parameters": {…}}}'
_SIMPLER: Final = f"{MAX_DEPTH} levels are the most"
_ELSEWHERE: Final = ("inputSchema", "input_schema")
"""Where MCP and Anthropic's API have the parameters."""


class Toolbox:
    """Declared tools, with what is to be said of them: (index, reason, hint), index -1 for all."""

    __slots__ = ("_compiled", "_parameters", "form", "inexact", "problems", "warnings")

    def __init__(self, *problems: tuple[int, str, str]) -> None:
        self._parameters: dict[str, Schema | dict[str, Any]] = {}
        """By the tool's name; a plain schema as it stands."""
        self._compiled: dict[str, Schema] = {}
        """The plain ones that were asked for."""
        self.form: list[dict[str, Any]] | None = None
        """As chat templates take them, in the OpenAI form; shared by rows, so not to be changed."""
        self.problems = list(problems)
        self.warnings: list[tuple[int, str, str]] = []
        self.inexact = False
        """orjson may have made floats of whole numbers in it."""

    def names(self) -> Set[str]:
        return self._parameters.keys()

    def schema(self, name: str) -> Schema | None:
        """What a tool asks of its arguments; `None` if it isn't declared."""
        found = self._parameters.get(name)
        if isinstance(found, dict):
            found = self._compiled.get(name) or Schema(found, plain=True)
            self._compiled[name] = found
        return found

    def surely_fits(self, name: str, arguments: dict[str, Any]) -> bool:
        """Whether a plain tool of this name has no fault with these arguments.

        Cheaper than its compiled schema; a call that this says no to may be as good.
        """
        found = self._parameters.get(name)
        return type(found) is dict and fits(arguments, found)

    def add(self, name: str, parameters: Schema) -> None:
        self._parameters[name] = parameters

    def add_plain(self, functions: list[dict[str, Any]]) -> None:
        """Declare tools of which `PLAIN_TOOLS` says that they are plain."""
        self._parameters = {function["name"]: function["parameters"] for function in functions}

    def and_all_of(self, other: Toolbox) -> Toolbox:
        """The tools of both; of a name in both, the other's."""
        both = Toolbox()
        both._parameters = self._parameters | other._parameters
        return both


class ToolReader:
    """Reads tools, the same ones only once."""

    def __init__(self) -> None:
        self._by_json: Recent[Toolbox] = Recent(_KEPT_BYTES)
        self._by_text: Recent[Toolbox] = Recent(_KEPT_BYTES)

    def unremarkable(self, raw: object) -> Toolbox | None:
        """Tools from the row's key `tools`, if there is nothing to say of them."""
        box = self._from_json(raw)
        return None if box.problems or box.warnings or box.inexact else box

    def unremarkable_text(self, text: str) -> Toolbox | None:
        """Tools from a system turn with `<tools>`, if there is nothing to say of them."""
        box = self._in_text(text)
        return None if box.problems or box.warnings else box

    def from_key(self, raw: object, found: Problems) -> Toolbox:
        """Tools from the row's key `tools`: a list, or a string of JSON."""
        box = self._from_json(raw)
        for index, reason, hint in box.problems:
            found.add("tools" if index < 0 else f"tools[{index}]", reason, hint)
        for index, reason, hint in box.warnings:
            found.warn(f"tools[{index}]", reason, hint)
        return box

    def _from_json(self, raw: object) -> Toolbox:
        if raw is None or raw == []:
            return Toolbox()
        try:
            key = raw if isinstance(raw, str) else orjson.dumps(raw)
        except TypeError:  # whole numbers that orjson doesn't hold
            return _from_value(raw)
        box = self._by_json.get(key)
        if box is None:
            box = _from_string(raw) if isinstance(raw, str) else _from_value(raw)
            self._by_json.put(key, box)
        return box

    def from_text(self, text: str, place: Callable[[int], str], found: Problems) -> Toolbox | None:
        """Tools from the `<tools>` blocks of a system turn; `None` if there are no such blocks.

        `place` gives the path of a turn's text, asked for the first.
        """
        if "<tools>" not in text:
            return None
        box = self._in_text(text)
        for index, reason, hint in box.problems:
            found.add(place(0), _in_text(index, reason), hint)
        for index, reason, hint in box.warnings:
            found.warn(place(0), _in_text(index, reason), hint)
        return box if box.names() or box.problems else None

    def _in_text(self, text: str) -> Toolbox:
        box = self._by_text.get(text)
        if box is None:
            self._by_text.put(text, box := _from_text(text))
        return box


def declared(row: Row, reader: ToolReader) -> Toolbox:
    """The tools of a row that has passed the checks, wherever it declares them."""
    beside, first, unread = reader.from_key(row.tools, Problems()), row.messages[0], Problems()
    if first["role"] != "system" or not first["content"]:
        return beside
    told = reader.from_text(first["content"], lambda _: "", unread)
    return beside if told is None else beside.and_all_of(told)


def read_toolbox(raw: list[Any], *, form: bool = True) -> Toolbox:
    """Tools in the OpenAI form or bare, each checked. `form`: as chat templates take them, too."""
    if len(raw) > MAX_TOOLS:
        return Toolbox((-1, f"declares {len(raw)} tools, more than {MAX_TOOLS}", "declare fewer"))
    if PLAIN_TOOLS.is_valid(raw):
        box = Toolbox()
        box.add_plain([tool.get("function", tool) for tool in raw])
        if len(box.names()) == len(raw):
            box.form = _form(raw) if form else None
            return box
    return _looked_at(raw)


def _looked_at(raw: list[Any]) -> Toolbox:
    """As `read_toolbox`, for any list: what is wrong with it is found."""
    box = Toolbox()
    box.inexact = is_inexact(raw)
    for index, tool in enumerate(raw):
        name = tool_name(tool)
        if name is None:
            box.problems.append((index, "has no name that is a string", _FORM))
        elif name in box.names():
            box.problems.append((index, f"'{brief(name)}' is declared twice", "declare each once"))
        elif too_deep(tool):
            box.problems.append((index, f"'{brief(name)}' is nested too deeply", _SIMPLER))
        else:
            box.add(name, _schema(tool.get("function", tool), index, box))
    box.form = None if box.problems else _form(raw)
    return box


def _form(raw: list[dict[str, Any]]) -> list[dict[str, Any]]:
    # Serving hands tools to the template in this form, so training does too.
    return [tool if "function" in tool else {"type": "function", "function": tool} for tool in raw]


def tool_name(tool: object) -> str | None:
    """The name a declared tool goes by, in the OpenAI form or bare."""
    inner = tool.get("function", tool) if isinstance(tool, dict) else None
    name = inner.get("name") if isinstance(inner, dict) else None
    return name if isinstance(name, str) and name else None


def _schema(function: dict[str, Any], index: int, box: Toolbox) -> Schema:
    name = brief(function["name"])
    raw = _parameters(function, name, index, box)
    if not isinstance(raw, dict):
        reason = f"the parameters of '{name}' are {kind(raw)}, not a JSON Schema"
        box.problems.append((index, reason, 'write {"type": "object", "properties": {…}}'))
        return Schema({}, plain=True)
    schema = Schema(raw)
    flaw, hint = schema.flaw
    if flaw:
        reason = f"the parameters of '{name}' are not JSON Schema: {flaw}"
        box.problems.append((index, reason, hint))
    elif schema.foreign:
        names = ", ".join(f"'{brief(name)}'" for name in schema.foreign[:8])
        reason = f"the parameters of '{name}' have types that JSON Schema doesn't: {names}"
        box.warnings.append((index, reason, "calls are checked against the types that are meant"))
    return schema


def _parameters(function: dict[str, Any], name: str, index: int, box: Toolbox) -> object:
    if function.get("parameters") is not None:
        return function["parameters"]
    for key in _ELSEWHERE:
        if function.get(key) is not None:
            reason = f"'{name}' has its parameters in '{key}'"
            hint = "write 'parameters', as a server with OpenAI's API hands them to the model"
            box.warnings.append((index, reason, hint))
            return function[key]
    return {}


def _from_value(raw: object) -> Toolbox:
    if not isinstance(raw, list):
        return Toolbox((-1, f"is {kind(raw)}, not a list", "write a list of tools"))
    return read_toolbox(raw)


def _from_string(raw: str) -> Toolbox:
    if not raw.strip():
        return Toolbox()
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        reason = f"is a string that is not JSON: {error.msg}"
        return Toolbox((-1, reason, "write a list of tools"))
    if value is None or value == []:
        return Toolbox()
    if too_deep(value, 2 * MAX_DEPTH):
        return Toolbox((-1, "is a string of JSON that is nested too deeply", _SIMPLER))
    box = _from_value(value)
    if box.inexact:
        box = _from_value(json.loads(raw))
        box.inexact = False
    if may_repeat(raw, value):
        box.problems.extend(_twice(*found) for found in repeated_keys(raw))
    return box


def _from_text(text: str) -> Toolbox:
    tools: list[Any] = []
    problems: list[tuple[int, str, str]] = []
    for block in tool_blocks(text):
        try:
            read = tools_of(block)
            if may_repeat(block, read):
                problems += [_twice(*found) for found in find_repeated(tools_of(block, DECODER))]
        except ValueError as error:
            problems.append((-1, brief(str(error), 160), "write tools as JSON"))
        else:
            tools += read
    box = read_toolbox(tools, form=False)
    box.problems[:0] = problems
    return box


def _twice(path: str, key: str) -> tuple[int, str, str]:
    where = f" at '{path.removeprefix('.')}'" if path else ""
    return -1, f"the key '{key}'{where} stands twice in one object", ONCE


ONCE: Final = "readers differ in which value they take"


def _in_text(index: int, reason: str) -> str:
    return f"<tools> {reason}" if index < 0 else f"tool {index + 1} in <tools>: {reason}"
