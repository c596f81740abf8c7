"""What only a try-out tells of a chat template: how it opens and ends turns, how it wants calls."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from typing import Final

from job.dataset.rows.row import Message
from job.dataset.tokens.template import ChatTemplate, TemplateFailed

_USER: Final = "forge probe question"
_THOUGHT: Final = "forge probe thought"
_ANSWER: Final = "forge probe answer"
_TOOL: Final = "forge_probe_tool"
_ARGUMENT: Final = '"forge_key": "forge value"'
_RESULT: Final = '{"forge_key": "forge result"}'


class NotAChatTemplate(Exception):
    """It fails on an ordinary conversation, or doesn't show it; the message says which."""


def probed(template: ChatTemplate, added_tokens: Sequence[str]) -> ChatTemplate:
    """The template with all that the probes tell of it. Raises `NotAChatTemplate`.

    `added_tokens` are those that the tokenizer takes out of text as they are.
    """
    question = {"role": "user", "content": _USER}
    try:
        before = template.render([question], None)
        whole = template.render([question, {"role": "assistant", "content": _ANSWER}], None)
    except TemplateFailed as error:
        raise NotAChatTemplate(f"fails: {error}") from error
    if _USER not in whole or _ANSWER not in whole or not whole.startswith(before):
        raise NotAChatTemplate("doesn't show each turn in order")
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


def shows_all(template: ChatTemplate) -> bool:
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


def _probe_call(content: str | None) -> Message:
    function = {"name": _TOOL, "arguments": json.loads("{" + _ARGUMENT + "}")}
    call = {"type": "function", "id": "probe0000", "function": function}
    return {"role": "assistant", "content": content, "tool_calls": [call]}
