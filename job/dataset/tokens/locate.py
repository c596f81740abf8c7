"""Where in a rendered conversation each answer stands, or why that can't be told for sure.

An answer begins where the rendering of the turns before it, with the generation prompt, ends: that
is what the model will be given when it serves, so it must be the beginning of what it is trained
on. It ends with the first end-of-turn token after that. A row is refused where either doesn't
hold, or where the template hides anything that the row says, instead of being trained wrong.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from job.dataset.rows.hermes import ToolCall, parse_tool_calls
from job.dataset.rows.row import Message, Row, RowRefused
from job.dataset.tokens.samples import Rendered, Span
from job.dataset.tokens.shown import Reader
from job.dataset.tokens.template import ChatTemplate, TemplateFailed


class Locator:
    """Finds the answers in what one template renders."""

    def __init__(self, template: ChatTemplate, special_tokens: Collection[str] = ()) -> None:
        """`special_tokens` are those of the tokenizer that stand for no text."""
        self._template = template
        self._turn_token = _any_of(template.turn_tokens)
        self._no_text = tuple(dict.fromkeys((*template.turn_tokens, *special_tokens)))
        self._no_text_at_all = _any_of(self._no_text)

    def located(
        self, row: Row, text: str | TemplateFailed, prompts: Iterable[str | TemplateFailed]
    ) -> Rendered:
        """Text and trained spans of `row`, rendered as `text`; `prompts` is what comes before each
        answer. Raises `RowRefused`."""
        if isinstance(text, TemplateFailed):
            raise refused_by(text)
        self._refuse_special_tokens(row)
        spans: list[Span] = []
        before, begun = 0, ""
        for index, prompt in zip(row.assistant_turns, prompts, strict=True):
            start = self._start(row, index, text, prompt)
            begun = begun or str(prompt)[start:]
            self._refuse_hidden_turns(row, range(before, index), text, spans[-1:], start)
            end = self._end(row, index, text, start)
            _refuse_hidden_answer(row, index, text, (start, end))
            spans.append((start, end))
            before = index + 1
        if row.tools and not self._shows_tools(row, text[: spans[0][0]]):
            raise RowRefused(
                "tools",
                "the chat template ignores the tools",
                "write them into the system turn as <tools>, or use a template that knows tools",
            )
        return Rendered(text, tuple(spans), begun)

    def render(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool = False
    ) -> str:
        """The text of some messages. Raises `RowRefused`."""
        try:
            return self._template.render(messages, tools, prompt=prompt)
        except TemplateFailed as error:
            raise refused_by(error) from error

    def _start(self, row: Row, index: int, text: str, prompt: str | TemplateFailed) -> int:
        """Where the turn's own text begins: after what the model is given to answer."""
        if isinstance(prompt, TemplateFailed):
            raise refused_by(prompt)
        if text.startswith(prompt):
            return len(prompt)
        # Some generation prompts open a <think> block which the turns in the data don't have: told
        # as a warning.
        prefix = self.render(row.messages[:index], row.tools)
        if text.startswith(prefix + self._template.opening):
            return len(prefix) + len(self._template.opening)
        raise RowRefused(
            f"messages[{index}]",
            "the chat template shows what comes before this turn differently once the conversation "
            "goes on",
            "what is trained would not be what the model reads; end the row before, or split it",
        )

    def _end(self, row: Row, index: int, text: str, start: int) -> int:
        """After the token that ends the turn: the white space after it is none that the model
        writes."""
        token = self._turn_token.search(text, start)
        if token is not None and token.group() in self._template.turn_ends:
            return token.end()
        if (end := self._ends_at(row, index, text)) > start:
            return end
        raise _unended(index)

    def _ends_at(self, row: Row, index: int, text: str) -> int:
        """Where the text of the conversation up to and with a turn ends; -1 if that text isn't the
        beginning of the whole, or doesn't end with the token that ends turns."""
        prefix = self.render(row.messages[: index + 1], row.tools).rstrip()
        whole = text.startswith(prefix) and prefix.endswith(tuple(self._template.turn_ends))
        return len(prefix) if whole else -1

    def _refuse_hidden_turns(
        self, row: Row, between: range, text: str, answer: Sequence[Span], end: int
    ) -> None:
        """What stands between the `answer` before, if there is one, and the next may not be
        missing from what the model reads."""
        reader = Reader(text, answer[0][1] if answer else 0)
        for index in between:
            if reader.missing(row.messages[index], end) is None:
                continue
            if answer and self._ends_at(row, between[0] - 1, text) != answer[0][1]:
                raise _unended(between[0] - 1)
            raise RowRefused(
                f"messages[{index}]",
                f"the chat template doesn't show this {row.messages[index]['role']} turn",
                "the model would be trained without it",
            )

    def _shows_tools(self, row: Row, prompt: str) -> bool:
        before = row.messages[: row.assistant_turns[0]]
        names = [_name(tool) for tool in row.tools or ()]
        if not all(name in prompt for name in names):
            return False
        said = "".join(message["content"] for message in before) + self._template.own_words
        if not any(name in said for name in names):
            return True
        return self.render(before, row.tools) != self.render(before, None)

    def _refuse_special_tokens(self, row: Row) -> None:
        """A turn that holds the tokens between turns would be read as several; any other special
        token would be one too, in place of its letters."""
        raw = row.raw
        if raw and not _hides_tokens(raw) and not self._no_text_at_all.search(raw.decode()):
            return
        parts: list[tuple[str, str]] = [
            (f"messages[{index}].{key}", _plain(message[key]))
            for index, message in enumerate(row.messages)
            for key in ("content", "reasoning_content", "tool_calls", "name", "tool_call_id")
            if message.get(key)
        ]
        for path, text in [*parts, ("tools", _plain(row.tools))]:
            for token in self._no_text:
                if token in text:
                    raise self._refusal_of_token(path, token)

    def _refusal_of_token(self, path: str, token: str) -> RowRefused:
        if token in self._template.turn_tokens:
            reason = f"holds '{token}', which the chat template puts around turns"
            hint = "give the plain text of each turn, not a rendered conversation"
            return RowRefused(path, reason, hint)
        reason = f"holds '{token}', which the tokenizer reads as a special token"
        return RowRefused(path, reason, "remove it, or spell it in another way")


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(tokens, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def _unended(index: int) -> RowRefused:
    return RowRefused(
        f"messages[{index}]",
        "the chat template ends this turn with no token of its own",
        "trained on it, the model would never learn to stop",
    )


def refused_by(error: TemplateFailed) -> RowRefused:
    hint = "the words are the template's: change the row, or take a model whose template takes it"
    return RowRefused("messages", f"the chat template refuses the row: {error}", hint)


def _hides_tokens(raw: bytes) -> bool:
    """Whether JSON may write letters of a token otherwise than as they are."""
    return b"\\u" in raw or b"\\/" in raw


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _refuse_hidden_answer(row: Row, index: int, text: str, span: Span) -> None:
    """No part of an answer may be missing, and a server must read from it the calls that the row
    has."""
    message, path = row.messages[index], f"messages[{index}]"
    if (lost := Reader(text, span[0]).missing(message, span[1])) is not None:
        raise RowRefused(
            path,
            f"the chat template hides a part of this turn: {_brief(lost)}",
            "the part would not be trained; take it out, or use a template that keeps it",
        )
    if message.get("tool_calls") and "<tool_call>" in text[slice(*span)]:
        calls = [
            ToolCall(call["function"]["name"], call["function"]["arguments"])
            for call in message["tool_calls"]
        ]
        if parse_tool_calls(text[slice(*span)]) != calls:
            raise RowRefused(
                f"{path}.tool_calls",
                "as the chat template writes them, a server would read other calls",
                "is there a <tool_call> tag in an argument or in the text?",
            )


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:60] + "…")
