"""From conversations to tokens and labels, through the model's own template and tokenizer.

Where an assistant turn begins and ends is found by rendering: the conversation up to the turn with
the generation prompt, and up to and with the turn. Both must be beginnings of the whole, or else
the template rewrites what it showed before, and the row is refused instead of being trained wrong.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, processors

from job.dataset.row import Message, Row, RowRefused
from job.dataset.template import ChatTemplate, TemplateFailed
from job.errors import Problem, SettingsError

IGNORED: Final = -100
"""The label that no loss is computed on, as in PyTorch."""

Ids: TypeAlias = npt.NDArray[np.int32]
Span: TypeAlias = tuple[int, int]
"""First character and the one after the last."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as the model reads it."""

    text: str
    spans: tuple[Span, ...]
    """What each assistant turn says, its end-of-turn token included."""
    ends: tuple[int, ...]
    """Where the text of the conversation up to and with each assistant turn ends."""

    def prefix(self, turns: int) -> Rendered:
        """The conversation up to its `turns`-th assistant turn (counted from 1)."""
        return Rendered(self.text[: self.ends[turns - 1]], self.spans[:turns], self.ends[:turns])


@dataclass(frozen=True, slots=True)
class Sample:
    """What the trainer gets of a conversation."""

    input_ids: Ids
    labels: Ids
    """The token where it is trained, else `IGNORED`."""

    @property
    def supervised(self) -> int:
        """Tokens that are trained."""
        return int((self.labels != IGNORED).sum())


class ChatFormat:
    """A model's chat template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._added = tuple(
            token.content for token in tokenizer.get_added_tokens_decoder().values()
        )

    @classmethod
    def load(cls, model_dir: Path) -> ChatFormat:
        """Read a model folder. Raises `SettingsError` naming `FORGE_MODEL` and what is missing."""
        tokenizer = _load_tokenizer(model_dir)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return cls(ChatTemplate.load(model_dir, added), tokenizer)

    @property
    def template_sha256(self) -> str:
        return self._template.sha256

    def prompt(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> str:
        """The text after which the model answers. Raises `RowRefused`."""
        return self._render(messages, tools, prompt=True)

    def render(self, row: Row) -> Rendered:
        """Text and trained spans of `row`. Raises `RowRefused` if they can't be told for sure."""
        self._no_turn_tokens(row)
        text = self._render(row.messages, row.tools)
        spans, ends = [], []
        for index in row.assistant_turns:
            start = self._start(row, index, text)
            end = len(text)
            if index + 1 < len(row.messages):
                end = self._prefix(row, index + 1, text)
            spans.append(self._span(row, index, text, start, end))
            ends.append(end)
        self._all_shown(row, text)
        return Rendered(text, tuple(spans), tuple(ends))

    def encode(
        self, batch: Sequence[Rendered], loss_on: Literal["assistant", "all"]
    ) -> list[Sample]:
        """Tokens and labels; some hundred conversations at a time keep every core busy."""
        encodings = self._tokenizer.encode_batch(
            [rendered.text for rendered in batch], add_special_tokens=False
        )
        samples = []
        for rendered, encoding in zip(batch, encodings, strict=True):
            ids = np.array(encoding.ids, dtype=np.int32)
            labels = ids
            if loss_on == "assistant":
                labels = np.where(_inside(encoding.offsets, rendered.spans), ids, np.int32(IGNORED))
            samples.append(Sample(ids, labels))
        return samples

    def _render(
        self, messages: Sequence[Message], tools: list[dict[str, Any]] | None, prompt: bool = False
    ) -> str:
        try:
            return self._template.render(messages, tools, prompt=prompt)
        except TemplateFailed as error:
            raise RowRefused("messages", f"the chat template refuses the row: {error}") from error

    def _start(self, row: Row, index: int, text: str) -> int:
        """Where the turn's own text begins: after what the model is given to answer."""
        before = row.messages[:index]
        prompt = self._render(before, row.tools, prompt=True)
        if text.startswith(prompt):
            return len(prompt)
        # Some generation prompts open a <think> block which the turns in the data don't have.
        start = self._prefix(row, index, text)
        if text.startswith(self._template.opening, start):
            return start + len(self._template.opening)
        raise _rewritten(index)

    def _prefix(self, row: Row, count: int, text: str) -> int:
        """Length of the first `count` messages' text, which must be a beginning of the whole."""
        prefix = self._render(row.messages[:count], row.tools)
        if not text.startswith(prefix):
            raise _rewritten(count - 1)
        return len(prefix)

    def _span(self, row: Row, index: int, text: str, start: int, end: int) -> Span:
        """The turn without the white space after its last token, which the model never writes."""
        said = text[start:end].rstrip()
        path = f"messages[{index}]"
        if not said.endswith(self._added):
            raise RowRefused(
                path,
                "the chat template ends this turn with no token of its own",
                "trained on it, the model would never learn to stop",
            )
        for shown in _texts(row.messages[index]):
            if not _shows(said, shown):
                raise RowRefused(
                    path,
                    f"the chat template hides a part of this turn: {_brief(shown)}",
                    "the part would not be trained; take it out, or use a template that keeps it",
                )
        return start, start + len(said)

    def _all_shown(self, row: Row, text: str) -> None:
        """Nothing that the row says may be missing from what the model reads."""
        for index, message in enumerate(row.messages):
            if message["role"] != "assistant" and not _shows(text, message["content"]):
                raise RowRefused(
                    f"messages[{index}]",
                    f"the chat template doesn't show this {message['role']} turn",
                    "the model would be trained without it",
                )
        if row.tools and not self._shows_tools(row):
            raise RowRefused(
                "tools",
                "the chat template ignores the tools",
                "write them into the system turn as <tools>, or use a template that knows tools",
            )

    def _shows_tools(self, row: Row) -> bool:
        before = row.messages[: row.assistant_turns[0]]
        return self._render(before, row.tools) != self._render(before, None)

    def _no_turn_tokens(self, row: Row) -> None:
        """A turn that holds the tokens between turns would be read as several."""
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


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _inside(offsets: Sequence[Span], spans: Sequence[Span]) -> npt.NDArray[np.bool_]:
    """Which tokens lie inside a span with all their characters."""
    array = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    starts, ends = array[:, 0], array[:, 1]
    inside = np.zeros(len(array), dtype=np.bool_)
    for first, last in spans:
        # A token of no width stands before the character at its place.
        inside |= (starts >= first) & (ends <= last) & (starts < last)
    return inside


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


def _shows(rendered: str, text: str) -> bool:
    """Templates may trim a text, change its white space, or write it as JSON."""
    text = text.strip()
    if text in rendered or json.dumps(text, ensure_ascii=False)[1:-1] in rendered:
        return True
    return "".join(text.split()) in "".join(rendered.split())


def _brief(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else text[:60] + "…")


def _rewritten(index: int) -> RowRefused:
    return RowRefused(
        f"messages[{index}]",
        "the chat template shows this part otherwise once the conversation goes on",
        "what is trained would not be what the model reads; end the row before, or split it",
    )


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
