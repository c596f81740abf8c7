"""From conversations to the text that the model reads, and to its tokens: the model's own template
and tokenizer.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, processors

from job.choices import LossOn
from job.dataset.rows.row import Message, Row, RowRefused
from job.dataset.tokens.encode import Encoder
from job.dataset.tokens.loading import load_template
from job.dataset.tokens.locate import Locator
from job.dataset.tokens.results import bare_results, bare_row, in_terms_of
from job.dataset.tokens.samples import Encoded, Rendered
from job.dataset.tokens.template import DEFAULT, ChatTemplate, TemplateFailed
from job.errors import Problem, SettingsError

_DEAR: Final = 200_000
"""Characters that the turns of a row come to, each rendered with all before it. A row with more is
measured first, if it has many for its limit: one that is too long needs none of them."""
_MANY: Final = 2
"""Characters a token."""
_TOGETHER: Final = 16_000_000
"""Such characters that may be in memory at once."""


class ChatFormat:
    """A model's chat template and tokenizer."""

    def __init__(self, template: ChatTemplate, tokenizer: Tokenizer) -> None:
        self._template = template
        self._tokenizer = tokenizer
        self._encoder = Encoder(tokenizer)
        added = tokenizer.get_added_tokens_decoder().values()
        special = [token.content for token in added if token.special and token.content.strip()]
        self._locator = Locator(template, special)

    @classmethod
    def load(cls, model_dir: Path, other_template: str | None = None) -> ChatFormat:
        """Read a model folder; `other_template` is taken where the model's own hides tools or
        thinking. Raises `SettingsError` naming `FORGE_MODEL` and what is missing."""
        tokenizer = _load_tokenizer(model_dir)
        added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        return cls(load_template(model_dir, added, other_template), tokenizer)

    @property
    def opening(self) -> str:
        """What opens an assistant turn, between the turns before it and its text."""
        return self._template.opening

    @property
    def turn_ends(self) -> frozenset[str]:
        """The tokens that end an assistant turn."""
        return self._template.turn_ends

    @property
    def replacement(self) -> str | None:
        """The template's text where it isn't the model's own: the adapter has to bring it."""
        return self._template.sources[DEFAULT] if self._template.replaces_own else None

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

    def read_back(self, texts: Sequence[str]) -> list[tuple[str, int]]:
        """Each text as its tokens say it, and how many they are."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(self.decode(encoding.ids), len(encoding.ids)) for encoding in encodings]

    def prompt(self, messages: Sequence[Message], tools: list[dict[str, Any]] | None) -> str:
        """The text after which the model answers. Raises `RowRefused`."""
        if self._template.tags_results:
            messages = bare_results(messages)
        return self._locator.render(messages, tools, prompt=True)

    def render(self, row: Row) -> Rendered:
        """Text and trained spans of `row`. Raises `RowRefused` if they can't be told for sure."""
        [rendered] = self.render_all([row])
        if isinstance(rendered, RowRefused):
            raise rendered
        return rendered

    def render_all(
        self,
        rows: Sequence[Row],
        max_seq_length: int | None = None,
        alive: Callable[[], None] = lambda: None,
    ) -> list[Rendered | RowRefused]:
        """As `render`, of many rows; fastest where they share the object of their tools.

        Text that can't be encoded in `max_seq_length` tokens may come without spans: it is too long
        to be trained on, and to look at every turn of it would take time and memory for nothing.
        `alive` is called now and then.
        """
        sharing: defaultdict[int, list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            sharing[id(row.tools)].append(i)
        results: dict[int, Rendered | RowRefused] = {}
        for places in sharing.values():
            group = [self._as_shown(rows[i]) for i in places]
            results |= zip(places, self._group(group, max_seq_length, alive), strict=True)
        return [self._as_in_data(row, results[i]) for i, row in enumerate(rows)]

    def encode(self, batch: Sequence[Rendered], loss_on: LossOn) -> Encoded:
        """Tokens and labels; some hundred conversations at a time keep every core busy."""
        return self._encoder.encode(batch, loss_on)

    def _as_shown(self, row: Row) -> Row:
        """The row with tool answers as the template is to be given them."""
        return bare_row(row) if self._template.tags_results else row

    def _as_in_data(self, row: Row, result: Rendered | RowRefused) -> Rendered | RowRefused:
        if isinstance(result, RowRefused) and self._template.tags_results:
            return in_terms_of(row, result)
        return result

    def _group(
        self, rows: Sequence[Row], max_seq_length: int | None, alive: Callable[[], None]
    ) -> Iterator[Rendered | RowRefused]:
        """Rows with the same tools."""
        tools = rows[0].tools
        adapted = [self._template.adapted(row.messages) for row in rows]
        texts = self._template.render_all(adapted, tools)
        long = [self._is_too_long(*each, max_seq_length) for each in zip(rows, texts, strict=True)]
        costs = [0 if long[i] else _cost(row, texts[i]) for i, row in enumerate(rows)]
        for part in _parts(costs):
            alive()
            before = (
                adapted[i][:index] for i in part if not long[i] for index in rows[i].assistant_turns
            )
            prompts = self._prompts(before, tools, alive, together=len(part) > 1)
            for i in part:
                if long[i]:
                    yield Rendered(str(texts[i]), ())
                    continue
                own: Iterable[str | TemplateFailed] = islice(prompts, len(rows[i].assistant_turns))
                if len(part) > 1:
                    own = list(own)  # also where the row is refused before its last turn
                yield self._located(rows[i], texts[i], own)

    def _located(
        self, row: Row, text: str | TemplateFailed, prompts: Iterable[str | TemplateFailed]
    ) -> Rendered | RowRefused:
        try:
            return self._locator.located(row, text, prompts)
        except RowRefused as refusal:
            return refusal

    def _is_too_long(
        self, row: Row, text: str | TemplateFailed, max_seq_length: int | None
    ) -> bool:
        if max_seq_length is None or isinstance(text, TemplateFailed):
            return False
        if self._encoder.surely_longer(text, max_seq_length):
            return True
        if len(text) < _MANY * max_seq_length or _cost(row, text) < _DEAR:
            return False
        return self._encoder.is_longer(text, max_seq_length)

    def _prompts(
        self,
        before: Iterator[list[Message]],
        tools: list[dict[str, Any]] | None,
        alive: Callable[[], None],
        *,
        together: bool,
    ) -> Iterator[str | TemplateFailed]:
        """All at once, or one after the other where together they might not fit in memory."""
        if together:
            yield from self._template.render_all(list(before), tools, prompt=True)
        else:
            for messages in before:
                alive()
                yield from self._template.render_all([messages], tools, prompt=True)


def _cost(row: Row, text: str | TemplateFailed) -> int:
    """Characters of all its prompts, at most."""
    return 0 if isinstance(text, TemplateFailed) else len(text) * len(row.assistant_turns)


def _parts(costs: Sequence[int]) -> Iterator[range]:
    """Runs of rows that cost no more than may be in memory at once; a dearer row is alone."""
    first = total = 0
    for i, cost in enumerate(costs):
        if i > first and total + cost > _TOGETHER:
            yield range(first, i)
            first, total = i, 0
        total += cost
    yield range(first, len(costs))


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
