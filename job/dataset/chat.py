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

from job.dataset.encode import Encoded, Encoder, LossOn, Rendered, Span
from job.dataset.row import Message, Row, RowRefused
from job.dataset.template import ChatTemplate, TemplateFailed
from job.errors import Problem, SettingsError


class ChatFormat:
    """A model's chat template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        self._added = tuple(
            token.content for token in tokenizer.get_added_tokens_decoder().values()
        )
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
        spans = tuple(
            self._span(row, index, text, prompt)
            for index, prompt in zip(row.assistant_turns, prompts, strict=True)
        )
        self._all_shown(row, text, spans[0][0])
        return Rendered(text, spans)

    def _render(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool = False
    ) -> str:
        try:
            return self._template.render(messages, tools, prompt=prompt)
        except TemplateFailed as error:
            raise _refused_by(error) from error

    def _span(self, row: Row, index: int, text: str, prompt: str | TemplateFailed) -> Span:
        """The turn as it is trained: without the white space after its last token, which the
        model never writes."""
        start = self._start(row, index, text, prompt)
        end = self._end(row, index, text, start)
        for shown in _texts(row.messages[index]):
            if not _shows(text, shown, start, end):
                raise RowRefused(
                    f"messages[{index}]",
                    f"the chat template hides a part of this turn: {_brief(shown)}",
                    "the part would not be trained; take it out, or use a template that keeps it",
                )
        return start, end

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
        """After the token that ends the turn."""
        token = self._turn_token.search(text, start)
        if token is not None and token.group() in self._template.turn_ends:
            return token.end()
        prefix = self._render(row.messages[: index + 1], row.tools).rstrip()
        if not text.startswith(prefix) or not prefix.endswith(self._added):
            raise RowRefused(
                f"messages[{index}]",
                "the chat template ends this turn with no token of its own",
                "trained on it, the model would never learn to stop",
            )
        return len(prefix)

    def _all_shown(self, row: Row, text: str, first_answer: int) -> None:
        """Nothing that the row says may be missing from what the model reads."""
        for index, message in enumerate(row.messages):
            if message["role"] != "assistant" and not _shows(text, message["content"]):
                raise RowRefused(
                    f"messages[{index}]",
                    f"the chat template doesn't show this {message['role']} turn",
                    "the model would be trained without it",
                )
        if row.tools and not self._shows_tools(row, text[:first_answer]):
            raise RowRefused(
                "tools",
                "the chat template ignores the tools",
                "write them into the system turn as <tools>, or use a template that knows tools",
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
        if row.raw and b"\\u" not in row.raw:  # in an escape a token would go unseen
            text = row.raw.decode()
            if self._turn_token.search(text) is None:
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


def _refused_by(error: TemplateFailed) -> RowRefused:
    return RowRefused("messages", f"the chat template refuses the row: {error}")


def _name(tool: dict[str, Any]) -> str:
    return str(tool.get("function", tool).get("name"))


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _texts(message: Message) -> Iterator[str]:
    """All that an assistant turn says."""
    for text in (message["content"], message.get("reasoning_content")):
        if text:
            yield text
    for call in message.get("tool_calls", ()):
        yield call["function"]["name"]
        for key, value in call["function"]["arguments"].items():
            yield key
            if isinstance(value, str):
                yield value


def _shows(rendered: str, text: str, start: int = 0, end: int | None = None) -> bool:
    """Templates may trim a text, change its white space, or write it as JSON."""
    text = text.strip()
    end = len(rendered) if end is None else end
    if rendered.find(text, start, end) >= 0:
        return True
    rendered = rendered[start:end]
    if json.dumps(text, ensure_ascii=False)[1:-1] in rendered:
        return True
    return "".join(text.split()) in "".join(rendered.split())


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
