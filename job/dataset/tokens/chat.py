"""From conversations to the text that the model reads, through the model's own template.

Where an assistant turn begins is found by rendering: the conversation up to the turn, with the
generation prompt, is what the model will be given when it serves, and must be the beginning of
what it is trained on. It ends with the first end-of-turn token after that. A row is refused where
either doesn't hold, or where the template hides anything that the row says, instead of being
trained wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, processors

from job.dataset.rows.hermes import ToolCall, parse_tool_calls
from job.dataset.rows.row import Message, Row, RowRefused
from job.dataset.tokens.encode import Encoded, Encoder, LossOn, Rendered, Span
from job.dataset.tokens.shown import Reader
from job.dataset.tokens.template import ChatTemplate, TemplateFailed
from job.errors import Problem, SettingsError


class ChatFormat:
    """A model's chat template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        longest_first = sorted(template.turn_tokens, key=len, reverse=True)
        self._turn_token = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    @classmethod
    def load(cls, model_dir: Path) -> ChatFormat:
        """Read a model folder. Raises `SettingsError` naming `FORGE_MODEL` and what is missing."""
        tokenizer = _load_tokenizer(model_dir)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return cls(ChatTemplate.load(model_dir, added), tokenizer)

    @property
    def template_sha256(self) -> str:
        return self._template.sha256

    @property
    def sha256(self) -> str:
        """Of template and tokenizer: of all that makes tokens of a conversation."""
        return hashlib.sha256(
            (self._template.sha256 + self._tokenizer.to_str()).encode()
        ).hexdigest()

    def decode(self, ids: Sequence[int]) -> str:
        """The text of tokens, special ones included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def prompt(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> str:
        """The text after which the model answers. Raises `RowRefused`."""
        return self._render(messages, tools, prompt=True)

    def render(self, row: Row) -> Rendered:
        """Text and trained spans of `row`. Raises `RowRefused` if they can't be told for sure."""
        [rendered] = self.render_all([row])
        if isinstance(rendered, RowRefused):
            raise rendered
        return rendered

    def render_all(self, rows: Sequence[Row]) -> list[Rendered | RowRefused]:
        """As `render`, of many rows; fastest where they share the object of their tools."""
        sharing = defaultdict(list)
        for i, row in enumerate(rows):
            sharing[id(row.tools)].append(i)
        results: dict[int, Rendered | RowRefused] = {}
        for places in sharing.values():
            group = [rows[i] for i in places]
            results |= zip(places, self._group(group, group[0].tools), strict=True)
        return [results[i] for i in range(len(rows))]

    def encode(self, batch: Sequence[Rendered], loss_on: LossOn) -> Encoded:
        """Tokens and labels; some hundred conversations at a time keep every core busy."""
        return self._encoder.encode(batch, loss_on)

    def _group(
        self, rows: Sequence[Row], tools: list[dict[str, Any]] | None
    ) -> Iterator[Rendered | RowRefused]:
        """Rows with the same tools."""
        adapted = [self._template.adapted(row.messages) for row in rows]
        texts = self._template.render_all(adapted, tools)
        prompts = iter(
            self._template.render_all(
                [
                    messages[:index]
                    for row, messages in zip(rows, adapted, strict=True)
                    for index in row.assistant_turns
                ],
                tools,
                prompt=True,
            )
        )
        for row, text in zip(rows, texts, strict=True):
            before = [next(prompts) for _ in row.assistant_turns]
            try:
                yield self._located(row, text, before)
            except RowRefused as refusal:
                yield refusal

    def _located(
        self, row: Row, text: str | TemplateFailed, prompts: Sequence[str | TemplateFailed]
    ) -> Rendered:
        if isinstance(text, TemplateFailed):
            raise _refused_by(text)
        self._no_turn_tokens(row)
        spans: list[Span] = []
        before = 0
        for index, prompt in zip(row.assistant_turns, prompts, strict=True):
            start = self._start(row, index, text, prompt)
            self._all_shown(row, range(before, index), text, spans[-1:], start)
            end = self._end(row, index, text, start)
            _all_said(row, index, text, (start, end))
            spans.append((start, end))
            before = index + 1
        if row.tools and not self._shows_tools(row, text[: spans[0][0]]):
            raise RowRefused(
                "tools",
                "the chat template ignores the tools",
                "write them into the system turn as <tools>, or use a template that knows tools",
            )
        return Rendered(text, tuple(spans))

    def _render(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool = False
    ) -> str:
        try:
            return self._template.render(messages, tools, prompt=prompt)
        except TemplateFailed as error:
            raise _refused_by(error) from error

    def _start(self, row: Row, index: int, text: str, prompt: str | TemplateFailed) -> int:
        """Where the turn's own text begins: after what the model is given to answer."""
        if isinstance(prompt, TemplateFailed):
            raise _refused_by(prompt)
        if text.startswith(prompt):
            return len(prompt)
        # Some generation prompts open a <think> block which the turns in the data don't have.
        prefix = self._render(row.messages[:index], row.tools)
        if text.startswith(prefix + self._template.opening):
            return len(prefix) + len(self._template.opening)
        raise RowRefused(
            f"messages[{index}]",
            "the chat template shows what comes before this turn otherwise once the conversation "
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
        prefix = self._render(row.messages[: index + 1], row.tools).rstrip()
        whole = text.startswith(prefix) and prefix.endswith(tuple(self._template.turn_ends))
        return len(prefix) if whole else -1

    def _all_shown(
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
        said = "".join(message["content"] for message in before)
        if not any(name in said for name in names):
            return True
        return self._render(before, row.tools) != self._render(before, None)

    def _no_turn_tokens(self, row: Row) -> None:
        """A turn that holds the tokens between turns would be read as several."""
        if row.raw and not _hides_tokens(row.raw) and not self._turn_token.search(row.raw.decode()):
            return
        parts: list[tuple[str, str]] = [
            (f"messages[{index}].{key}", _plain(message[key]))
            for index, message in enumerate(row.messages)
            for key in ("content", "reasoning_content", "tool_calls")
            if message.get(key)
        ]
        for path, text in [*parts, ("tools", _plain(row.tools))]:
            for token in self._template.turn_tokens:
                if token in text:
                    raise RowRefused(
                        path,
                        f"holds '{token}', which the chat template puts around turns",
                        "give the plain text of each turn, not a rendered conversation",
                    )


def _unended(index: int) -> RowRefused:
    return RowRefused(
        f"messages[{index}]",
        "the chat template ends this turn with no token of its own",
        "trained on it, the model would never learn to stop",
    )


def _refused_by(error: TemplateFailed) -> RowRefused:
    return RowRefused("messages", f"the chat template refuses the row: {error}")


def _hides_tokens(raw: bytes) -> bool:
    """Whether JSON may write letters of a token otherwise than as they are."""
    return b"\\u" in raw or b"\\/" in raw


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _all_said(row: Row, index: int, text: str, span: Span) -> None:
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


def _load_tokenizer(model_dir: Path) -> Tokenizer:
    path = model_dir / "tokenizer.json"
    if not path.is_file():
        hint = "AutoTokenizer.from_pretrained(…).save_pretrained(folder) writes it"
        found = "has no tokenizer.json" if model_dir.is_dir() else "is not a folder"
        raise SettingsError(Problem("FORGE_MODEL", f"{model_dir}: {found}", hint))
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        problem = Problem("FORGE_MODEL", f"{path}: is not a tokenizer: {error}")
        raise SettingsError(problem) from error
    # A saved file may carry these; they would cut or fill conversations in silence.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    # The saved one may take white space out of the offsets; this one leaves them as they are.
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer
