"""A model's chat template, as transformers' own renderer renders it.

The renderer's import costs half a second, so it comes with the first template, without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from job.dataset.rows.row import Message

DEFAULT: Final = "default"
_WITH_TOOLS: Final = "tool_use"
_TODAY: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""What templates that print today's date get, always: Llama 3's own default. With the real one a
run resumed after midnight would train on other text."""


class TemplateFailed(Exception):
    """The template refuses a conversation or fails on it; the message is its own reason."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens it may use. Immutable; `load_template` makes one."""

    sources: dict[str, str]
    """By name; `default` is always there, `tool_use` is taken for rows with tools."""
    special_tokens: dict[str, str]
    """`bos_token`, `eos_token`, … → text."""
    opening: str = ""
    """What opens an assistant turn, between the turns before it and its text."""
    turn_tokens: tuple[str, ...] = ()
    """Tokens of the tokenizer that the template puts around turns."""
    turn_ends: frozenset[str] = frozenset()
    """Those of them with which it ends an assistant turn."""
    own_words: str = ""
    """What it writes around a question where no tools are given; some have a system turn in it."""
    empty_content: str | None = None
    """What a turn with `tool_calls` alone gets as its content; templates differ."""
    replaces_own: bool = False
    """Whether it stands in for the model's own."""
    arguments_as_text: bool = False
    """Whether the arguments of `tool_calls` must be a string of JSON instead of an object."""
    tags_results: bool = False
    """Whether it puts `<tool_response>` around tool answers, or writes them as JSON strings: it has
    a form for them, and is to be given the answer alone."""

    @property
    def sha256(self) -> str:
        """Of all the sources, for the run's fingerprint."""
        text = json.dumps(self.sources, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()

    def render(
        self,
        messages: Sequence[Message],
        tools: list[dict[str, Any]] | None,
        *,
        prompt: bool = False,
    ) -> str:
        """The text of `messages`; with `prompt` up to where the assistant begins to speak.

        Raises `TemplateFailed`.
        """
        [text] = self._rendered([self.adapted(messages)], tools, prompt=prompt)
        return text

    def render_all(
        self,
        conversations: Sequence[Sequence[Message]],
        tools: list[dict[str, Any]] | None,
        *,
        prompt: bool = False,
    ) -> list[str | TemplateFailed]:
        """The text of each (of messages as `adapted` gives them), or why it has none.

        One call for many saves half of the time of short ones.
        """
        try:
            return list(self._rendered(conversations, tools, prompt=prompt))
        except TemplateFailed as error:
            if len(conversations) == 1:
                return [error]
        return [self.render_all([one], tools, prompt=prompt)[0] for one in conversations]

    def adapted(self, messages: Sequence[Message]) -> list[Message]:
        """Messages as this template wants calls written."""
        return [self._adapted(turn) if "tool_calls" in turn else turn for turn in messages]

    def _rendered(
        self,
        conversations: Sequence[Sequence[Message]],
        tools: list[dict[str, Any]] | None,
        *,
        prompt: bool,
    ) -> list[str]:
        from transformers.utils.chat_template_utils import render_jinja_template

        name = _WITH_TOOLS if tools and _WITH_TOOLS in self.sources else DEFAULT
        try:
            texts, _ = render_jinja_template(
                conversations=conversations,
                tools=tools,
                chat_template=self.sources[name],
                add_generation_prompt=prompt,
                strftime_now=_TODAY.strftime,
                **self.special_tokens,
            )
        except Exception as error:  # the template is a program: it may raise anything
            raise TemplateFailed(f"{error}" or type(error).__name__) from error
        return [str(text) for text in texts]

    def _adapted(self, message: Message) -> Message:
        """The message as this template wants calls written."""
        calls = message.get("tool_calls")
        if not calls:
            return message
        if self.arguments_as_text:
            calls = [call | {"function": _arguments_as_text(call["function"])} for call in calls]
        content = self.empty_content if message["content"] is None else message["content"]
        return message | {"content": content, "tool_calls": calls}


def _arguments_as_text(function: dict[str, Any]) -> dict[str, Any]:
    return function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}
