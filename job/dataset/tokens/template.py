"""The model's own chat template: found in its folder, rendered by transformers' renderer.

The renderer's import costs half a second, so it comes with the first template, without torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any, Final

from job.dataset.rows.row import Message
from job.errors import Problem, SettingsError

_DEFAULT: Final = "default"
_WITH_TOOLS: Final = "tool_use"
_TODAY: Final = datetime(2024, 7, 26, tzinfo=UTC)
"""What templates that print today's date get, always: Llama 3's own default. With the real one a
run resumed after midnight would train on other text."""

_USER: Final = "forge probe question"
_THOUGHT: Final = "forge probe thought"
_ANSWER: Final = "forge probe answer"
_TOOL: Final = "forge_probe_tool"
_ARGUMENT: Final = '"forge_key": "forge value"'
_RESULT: Final = '{"forge_key": "forge result"}'


class TemplateFailed(Exception):
    """The template refuses a conversation or fails on it; the message is its own reason."""


@dataclass(frozen=True)
class ChatTemplate:
    """A template with the special tokens it may use. Immutable; `load` makes one."""

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

    @classmethod
    def load(
        cls, model_dir: Path, added_tokens: Sequence[str], other: str | None = None
    ) -> ChatTemplate:
        """From `chat_template.jinja` or `tokenizer_config.json`, tried on a probe conversation.

        `added_tokens` are those that the tokenizer takes out of text as they are. `other` is taken
        instead of a template that hides tools or thinking. Raises `SettingsError` naming
        `FORGE_MODEL`.
        """
        config = _tokenizer_config(model_dir)
        sources = _sources(model_dir, config)
        if _DEFAULT not in sources:
            raise _unusable(
                model_dir,
                "has no chat template",
                "chat_template.jinja, or chat_template in tokenizer_config.json; a base model has "
                "none: take its instruct variant",
            )
        own = _probed(cls(sources, _special_tokens(config)), model_dir, added_tokens)
        if other is None or _shows_all(own):
            return own
        replaced = cls({_DEFAULT: other}, own.special_tokens, replaces_own=True)
        return _probed(replaced, model_dir, added_tokens)

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

        name = _WITH_TOOLS if tools and _WITH_TOOLS in self.sources else _DEFAULT
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


def _probed(template: ChatTemplate, model_dir: Path, added_tokens: Sequence[str]) -> ChatTemplate:
    """The template with what only a try-out tells of it."""
    question = {"role": "user", "content": _USER}
    try:
        before = template.render([question], None)
        whole = template.render([question, {"role": "assistant", "content": _ANSWER}], None)
    except TemplateFailed as error:
        raise _unusable(model_dir, f"has a chat template that fails: {error}") from error
    if _USER not in whole or _ANSWER not in whole or not whole.startswith(before):
        raise _unusable(model_dir, "has a chat template that doesn't show each turn in order")
    template = _with_call_style(template, question)
    ends = _turn_ends(template, question, added_tokens)
    shown = (token for token in added_tokens if token.strip() and token in whole)
    return replace(
        template,
        opening=whole[len(before) : whole.index(_ANSWER)],
        own_words=before,
        turn_tokens=tuple(dict.fromkeys((*shown, *ends))),
        turn_ends=ends,
        tags_results=_tags_results(template, question),
    )


def _tags_results(template: ChatTemplate, question: Message) -> bool:
    """Tried after a call beside the text, and where that is refused, after one in the text."""
    result = {"role": "tool", "content": _RESULT, "tool_call_id": "probe0000", "name": _TOOL}
    answer = {"role": "assistant", "content": _ANSWER}
    for call in (_probe_call(None), answer):
        try:
            text = template.render([question, call, result, answer], None)
        except TemplateFailed:
            continue
        before, shown, _ = text.partition(_RESULT)
        if shown:
            return before.rstrip().endswith("<tool_response>")
        if json.dumps(_RESULT) in text:
            return True
    return False


def _shows_all(template: ChatTemplate) -> bool:
    """Whether a conversation with a tool, a call and a thought is rendered with all of them."""
    question = {"role": "user", "content": _USER}
    answer = {"role": "assistant", "content": f"<think>\n{_THOUGHT}\n</think>\n\n{_ANSWER}"}
    tool = {"type": "function", "function": {"name": _TOOL, "parameters": {"type": "object"}}}
    try:
        told = template.render([question, answer], [tool])
        called = template.render([question, _probe_call(None)], [tool])
    except TemplateFailed:
        return False
    return _THOUGHT in told and _TOOL in told and _ARGUMENT in called


def _turn_ends(
    template: ChatTemplate, question: Message, added_tokens: Sequence[str]
) -> frozenset[str]:
    """What stands at the end of a turn of text, and of one that calls if serving stops there."""

    def last(turn: Message) -> set[str]:
        try:
            text = template.render([question, turn], None).rstrip()
        except TemplateFailed:
            return set()
        return {token for token in added_tokens if token.strip() and text.endswith(token)}

    ends = last({"role": "assistant", "content": _ANSWER})
    stops = ends | {template.special_tokens.get("eos_token", "")}
    return frozenset(ends | (last(_probe_call(None)) & stops))


def _probe_call(content: str | None) -> Message:
    function = {"name": _TOOL, "arguments": json.loads("{" + _ARGUMENT + "}")}
    call = {"type": "function", "id": "probe0000", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}


def _with_call_style(template: ChatTemplate, question: Message) -> ChatTemplate:
    """How the template wants `tool_calls`: tried out, since nothing says it."""
    turn = _probe_call(None)
    for as_text, content in product((False, True), (None, "")):
        candidate = replace(template, empty_content=content, arguments_as_text=as_text)
        try:
            text = candidate.render([question, turn], None)
        except TemplateFailed:
            continue
        if _TOOL in text and _ARGUMENT in text and "None" not in text:
            return candidate
    # Rows with calls are then refused one by one, because their calls don't show.
    return replace(template, empty_content="")


def _arguments_as_text(function: dict[str, Any]) -> dict[str, Any]:
    return function | {"arguments": json.dumps(function["arguments"], ensure_ascii=False)}


def _sources(model_dir: Path, config: dict[str, Any]) -> dict[str, str]:
    """Templates by name. A file wins over the configuration, as in transformers."""
    files = {_DEFAULT: model_dir / "chat_template.jinja"}
    for path in sorted(model_dir.glob("additional_chat_templates/*.jinja")):
        files[path.stem] = path
    found = dict(_configured(config.get("chat_template")))
    for name, path in files.items():
        if path.is_file():
            found[name] = _text(path)
    return found


def _configured(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield _DEFAULT, value
    elif isinstance(value, list):
        for item in value:
            if isinstance(item, dict) and isinstance(item.get("template"), str):
                yield str(item.get("name", _DEFAULT)), item["template"]


def _tokenizer_config(model_dir: Path) -> dict[str, Any]:
    path = model_dir / "tokenizer_config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(_text(path))
    except ValueError as error:
        raise _unusable(path, f"is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise _unusable(path, "is not a JSON object")
    return config


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise _unusable(path, f"can't be read: {error}") from error


def _special_tokens(config: dict[str, Any]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    for name, value in config.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            tokens[name] = text
    return tokens


def _unusable(path: Path, found: str, hint: str = "") -> SettingsError:
    return SettingsError(Problem("FORGE_MODEL", f"{path}: {found}", hint))
