"""What a line of the data becomes: a row that can be trained on, or one that is refused and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias

from job.errors import Problem

Message: TypeAlias = dict[str, Any]
"""A turn in the OpenAI form: `role`, `content` (`None` beside `tool_calls`), and where given
`tool_calls` (arguments as an object), `tool_call_id`, `name`, `reasoning_content`."""


@dataclass(frozen=True, slots=True)
class RowProblem:
    """One thing that is wrong in a row."""

    path: str
    """Where in the row: `messages[2].content`; empty for the row as a whole."""
    reason: str
    hint: str = ""


@dataclass(slots=True)
class Row:
    """A conversation that passed every check.

    Not frozen, which would triple what it takes to make one; nobody changes it all the same.
    """

    uri: str
    line: int
    """Counted from 1, blank lines included."""
    messages: tuple[Message, ...]
    tools: list[dict[str, Any]] | None = None
    """Declared beside the messages, in the OpenAI form. Hermes rows declare them in their text."""
    meta: dict[str, Any] = field(default_factory=dict)
    """The row's other keys (`id`, `source`, …). They never reach the model."""
    raw: bytes = field(default=b"", repr=False, compare=False)
    """The line as it stands in the file, in case the row is refused later."""
    warnings: tuple[RowProblem, ...] = ()
    """What the user should know of the row. It is trained on all the same."""
    dialect: str = "openai"
    """How the row was written: `hermes`, `openai` or `sharegpt`."""

    @property
    def where(self) -> str:
        return f"{self.uri}:{self.line}"

    @property
    def assistant_turns(self) -> tuple[int, ...]:
        """Indices of the assistant's messages; never empty."""
        return tuple(i for i, turn in enumerate(self.messages) if turn["role"] == "assistant")

    def rejected(self, problem: RowProblem) -> RejectedRow:
        return RejectedRow(self.uri, self.line, self.raw, (problem,))


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A line that is not trained on."""

    uri: str
    line: int
    raw: bytes
    """As it stands in the file, without its line end (cut if it was longer than a line may be)."""
    problems: tuple[RowProblem, ...]

    def as_problems(self) -> list[Problem]:
        """For an error: the file and line, the path in it, what was found, how to mend it."""
        where = f"{self.uri}:{self.line}"
        return [
            Problem(
                where, f"{found.path}: {found.reason}" if found.path else found.reason, found.hint
            )
            for found in self.problems
        ]


class RowRefused(Exception):
    """A row that can't be used, found out after it was read: by the template or by its length."""

    def __init__(self, path: str, reason: str, hint: str = "") -> None:
        super().__init__(f"{path}: {reason}")
        self.problem = RowProblem(path, reason, hint)


class Problems:
    """Gathers what is wrong with one row, so that all of it is told at once."""

    __slots__ = ("found", "inexact", "warned")

    def __init__(self) -> None:
        self.found: list[RowProblem] = []
        self.warned: list[RowProblem] = []
        self.inexact = False
        """A whole number of the calls or tools may have lost digits when the line was parsed."""

    def add(self, path: str, reason: str, hint: str = "") -> None:
        """For this the row is refused."""
        self.found.append(RowProblem(path, reason, hint))

    def warn(self, path: str, reason: str, hint: str = "") -> None:
        """This is told; the row is trained on all the same."""
        self.warned.append(RowProblem(path, reason, hint))
