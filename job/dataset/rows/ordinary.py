"""Ordinary rows, as most are, read in one go: accepted, with nothing to report.

Whatever is the least unusual is left to `normalise` and `check`, which say what it is. What this
accepts, they accept without a word, and as the same conversation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import orjson

from job.dataset.rows.draft import MAX_TURNS, Draft
from job.dataset.rows.hermes import ToolCall, call_blocks, is_simple, nearly_a_tag, parse_call
from job.dataset.rows.repeats import may_repeat
from job.dataset.rows.row import Message
from job.dataset.rows.tools import Toolbox, ToolReader

_UNUSUAL: Final = frozenset(("conversations", "functions", "images", "videos", "audios", "system"))
_FOLLOWS: Final = frozenset(
    (
        *(("", "system"), ("", "user"), ("system", "user"), ("user", "assistant")),
        *(("assistant", "user"), ("assistant", "tool"), ("tool", "tool")),
        *(("tool", "assistant"), ("tool", "user")),
    )
)
"""Which turn may come after which."""
_CALL_KEYS: Final = frozenset(("role", "content", "tool_calls"))


def ordinary(value: object, tools: ToolReader) -> Draft | None:
    """The draft of a row that needs no closer look; `None` for all others."""
    if type(value) is not dict or not _UNUSUAL.isdisjoint(value):
        return None
    raw = value.get("messages")
    box = tools.unremarkable(value["tools"]) if "tools" in value else Toolbox()
    if type(raw) is not list or box is None or len(raw) > MAX_TURNS:
        return None
    talk = _Talk(box, tools)
    messages = talk.all_of(raw)
    if messages is None:
        return None
    meta = value.copy()
    del meta["messages"]
    meta.pop("tools", None)
    dialect = "hermes" if talk.in_text and not talk.structured else "openai"
    return Draft(messages, True, toolbox=box, meta=meta, dialect=dialect)


class _Talk:
    """Follows a conversation as long as it is ordinary."""

    __slots__ = ("answers", "awaited", "box", "ids", "in_text", "structured", "tools")

    def __init__(self, box: Toolbox, tools: ToolReader) -> None:
        self.box = box
        self.tools = tools
        self.awaited = 0
        """Calls of the turn that called last; none once something else was said."""
        self.answers = 0
        """Least number of tool turns that it still needs."""
        self.ids: set[str] = set()
        """Of its calls, until they are answered."""
        self.in_text = False
        self.structured = False

    def all_of(self, raw: list[Any]) -> list[Message] | None:
        messages = []
        before = ""
        for item in raw:
            if type(item) is not dict:
                return None
            role = item.get("role")
            if type(role) is not str or (before, role) not in _FOLLOWS:
                return None
            message = _READERS[role](self, item)
            if message is None:
                return None
            messages.append(message)
            before = role
        return messages if before == "assistant" else None

    def system(self, item: dict[str, Any]) -> Message | None:
        text = item.get("content")
        if len(item) != 2 or type(text) is not str:
            return None
        if "<tools>" in text:
            box = self.tools.unremarkable_text(text)
            if box is None or self.box.names():
                return None
            if box.names():
                self.box, self.in_text = box, True
        return {"role": "system", "content": text}

    def user(self, item: dict[str, Any]) -> Message | None:
        text = item.get("content")
        if len(item) != 2 or type(text) is not str or not text or text.isspace():
            return None
        # A call that is still unanswered is found by the assistant's turn that must follow.
        self.awaited = 0
        return {"role": "user", "content": text}

    def tool(self, item: dict[str, Any]) -> Message | None:
        text, given = item.get("content"), item.get("tool_call_id")
        if type(text) is not str or not self.awaited:
            return None
        self.awaited -= 1
        self.answers -= 1
        if given is None and len(item) == 2 and not self.ids:
            return {"role": "tool", "content": text}
        if type(given) is not str or len(item) != 3 or given not in self.ids:
            return None
        self.ids.remove(given)
        return {"role": "tool", "content": text, "tool_call_id": given}

    def assistant(self, item: dict[str, Any]) -> Message | None:
        if self.answers > 0:
            return None
        text, calls = item.get("content"), item.get("tool_calls")
        if type(text) is str and self.box.names() and nearly_a_tag(text):
            return None
        if calls is not None:
            return self._calls(item, text, calls)
        if len(item) != 2 or type(text) is not str:
            return None
        self.awaited = 0
        if "tool_call>" in text:
            if not self._written(text):
                return None
        elif not text or text.isspace():
            return None
        return {"role": "assistant", "content": text}

    def _written(self, text: str) -> bool:
        """Whether the calls in the text of a turn are fine."""
        blocks = call_blocks(text)
        for block in blocks:
            call = parse_call(block) if type(block) is str else block
            if type(call) is not ToolCall or not self.box.surely_fits(call.name, call.arguments):
                return False
            assert isinstance(block, str)
            if may_repeat(block, {"name": call.name, "arguments": call.arguments}):
                return False
        self.in_text = True
        # One tool turn may hold all the answers.
        self.awaited, self.answers = len(blocks), min(1, len(blocks))
        return bool(blocks)

    def _calls(self, item: dict[str, Any], text: object, calls: object) -> Message | None:
        """A turn with calls beside its text."""
        if type(calls) is not list or not calls or not item.keys() <= _CALL_KEYS:
            return None
        if text is not None and (type(text) is not str or "tool_call>" in text):
            return None
        read = [self._call(call) for call in calls]
        if None in read:
            return None
        self.ids = {call["id"] for call in read if call is not None and "id" in call}
        if self.ids and len(self.ids) < len(calls):
            return None
        self.structured = True
        self.awaited = self.answers = len(calls)
        return {"role": "assistant", "content": text or None, "tool_calls": read}

    def _call(self, call: object) -> dict[str, Any] | None:
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict or type(call) is not dict:
            return None
        name, arguments, given = function.get("name"), function.get("arguments"), call.get("id")
        if type(arguments) is str:
            arguments = _parsed(arguments)
        if type(arguments) is not dict or type(name) is not str or not is_simple(arguments):
            return None
        if not self.box.surely_fits(name, arguments):
            return None
        normal = {"type": "function", "function": {"name": name, "arguments": arguments}}
        if given is not None:
            if type(given) is not str:
                return None
            normal["id"] = given
        return normal


_Reader: TypeAlias = Callable[[_Talk, dict[str, Any]], Message | None]
_READERS: Final[dict[str, _Reader]] = {
    "system": _Talk.system,
    "user": _Talk.user,
    "assistant": _Talk.assistant,
    "tool": _Talk.tool,
}


def _parsed(arguments: str) -> object:
    """Arguments in a string of JSON, if no key stands in it twice."""
    try:
        value = orjson.loads(arguments)
    except orjson.JSONDecodeError:
        return None
    return None if may_repeat(arguments, value) else value
