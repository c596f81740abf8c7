"""Tool turns and the calls that they answer, by their ids or by their number."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Final

from job.dataset.rows.draft import Places
from job.dataset.rows.row import Message, Problems
from job.dataset.rows.words import exactly

_ID: Final = "write the id of the call that it answers"
_ADD: Final = "add it, or end the conversation here"


class Answers:
    """Follows a conversation turn by turn: which calls are still to be answered."""

    __slots__ = ("_answers", "_at", "_found", "_ids", "_open", "_places", "_written", "awaited")

    def __init__(self, places: Places, found: Problems) -> None:
        self._places = places
        self._found = found
        self._at = 0
        """The turn that called last."""
        self.awaited = 0
        """How many calls it made; none if it's no longer the turn to be answered."""
        self._written = False
        """They stand in its text."""
        self._ids = False
        """They have ids."""
        self._open: dict[str, int] = {}
        """Id → which call, as long as it isn't answered."""
        self._answers = 0

    def called(self, index: int, calls: Sequence[dict[str, Any]], written: int) -> None:
        """An assistant turn with `calls`, and `written` ones in its text."""
        if self.awaited:
            self.nothing_more()
        self.awaited = len(calls) + written
        if self.awaited:
            self._at, self._answers, self._written = index, 0, bool(written)
            self._open = {}
            self._ids = any("id" in call for call in calls)
            if self._ids:
                self._take_ids(calls)

    def answer(self, index: int, message: Message) -> None:
        """A tool turn."""
        if not self.awaited:
            reason = "a tool turn, but no assistant turn before it calls a tool"
            self._found.add(self._places.turn(index), reason, "put the call before it")
            return
        self._answers += 1
        given = message.get("tool_call_id")
        if given is not None:
            if self._open.pop(given, None) is None:
                reason = f"'{exactly(given, 80)}' is the id of no open call in the turn before"
                self._found.add(f"{self._places.turn(index)}.tool_call_id", reason, _ID)
        elif self._ids:
            reason = "is missing, though the calls have ids"
            self._found.add(f"{self._places.turn(index)}.tool_call_id", reason, _ID)
        elif self._answers > self.awaited:
            reason = f"answers no call: the turn before makes {self.awaited}"
            self._found.add(self._places.turn(index), reason, "one tool turn a call")

    def nothing_more(self) -> None:
        """Another turn came: what is not answered by now never will be.

        Not called at the end, where a conversation may stop with a call.
        """
        for call in self._open.values():
            path = self._places.call(self._at, call)
            self._found.add(path, "no tool turn answers this call", _ADD)
        if not self._ids and self._answers < self.awaited:
            # One turn may hold the answers to all calls that are written in a text.
            if not self._answers:
                self._unanswered("no tool turn answers its calls")
            elif not self._written:
                self._unanswered(f"{self._answers} tool turns answer its {self.awaited} calls")
        self.awaited, self._open = 0, {}

    def _unanswered(self, reason: str) -> None:
        self._found.warn(self._places.turn(self._at), reason, _ADD)

    def _take_ids(self, calls: Sequence[dict[str, Any]]) -> None:
        for n, call in enumerate(calls):
            given = call.get("id")
            if given is not None and given not in self._open:
                self._open[given] = n
                continue
            reason = "is missing, though other calls of the turn have one"
            if given is not None:
                reason = f"'{exactly(given, 80)}' is the id of another call, too"
            hint = "give each call of the turn an id of its own"
            self._found.add(f"{self._places.call(self._at, n)}.id", reason, hint)


def as_called(messages: Sequence[Message]) -> Sequence[Message]:
    """The messages with the answers of each turn in the order of its calls, where they have ids.

    Many templates show no ids: what the model reads first is the answer to the first call.
    """
    if sum("tool_call_id" in message for message in messages) < 2:
        return messages
    ordered: list[Message] = []
    for role, run in groupby(messages, key=lambda message: message["role"]):
        turns = list(run)
        ordered += _answers_as_called(ordered[-1], turns) if role == "tool" else turns
    return ordered


def _answers_as_called(calling: Message, answers: list[Message]) -> list[Message]:
    places = {call.get("id"): n for n, call in enumerate(calling.get("tool_calls", ()))}
    given = [turn.get("tool_call_id") for turn in answers]
    if None in places or not places.keys() >= set(given):
        return answers
    return sorted(answers, key=lambda turn: places[turn.get("tool_call_id")])
