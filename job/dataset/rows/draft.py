"""A row on its way from JSON to a conversation, and where in the JSON each part of it stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from job.dataset.rows.row import Message
from job.dataset.rows.tools import Toolbox

MAX_TURNS: Final = 10_000


class Places(Protocol):
    """JSON paths of the parts of a conversation, for errors. `index` and `call` count from 0."""

    def turn(self, index: int) -> str: ...

    def text(self, index: int) -> str: ...

    def call(self, index: int, call: int) -> str: ...

    def arguments(self, index: int, call: int) -> str: ...


class MessagePlaces:
    """Those of a row in the OpenAI form."""

    def turn(self, index: int) -> str:
        return f"messages[{index}]"

    def text(self, index: int) -> str:
        return f"messages[{index}].content"

    def call(self, index: int, call: int) -> str:
        return f"messages[{index}].tool_calls[{call}]"

    def arguments(self, index: int, call: int) -> str:
        return f"messages[{index}].tool_calls[{call}].function.arguments"


_PLACES: Final = MessagePlaces()
_NO_TOOLS: Final = Toolbox()


@dataclass(slots=True)
class Draft:
    """A row whose parts were read; what they mean together is not checked yet."""

    messages: list[Message] = field(default_factory=list)
    whole: bool = False
    """Every turn could be read. With one missing, remarks on the order would be noise."""
    places: Places = _PLACES
    toolbox: Toolbox = _NO_TOOLS
    """What the row's key `tools` declares."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The row's other keys."""
    dialect: str = "openai"
