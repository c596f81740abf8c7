"""Stand-ins for the model families: the real chat templates over small tokenizers.

Each tokenizer is trained here on a few sentences; normalizer, pre-tokenizer, decoder and the added
tokens are those of the family's own `tokenizer.json`, which is what decides where tokens may lie.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, trainers
from tokenizers import pre_tokenizers as pre

from job.dataset import ChatFormat, Message

TEMPLATES: Final = Path(__file__).parent / "templates"

_CONTRACTIONS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_BLANKS: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PIECES: Final = {
    "qwen": _CONTRACTIONS + r"\p{N}" + _BLANKS,
    "llama": _CONTRACTIONS + r"\p{N}{1,3}" + _BLANKS,
}
"""How Qwen2.5 and Llama 3 cut text before the merges."""

_SENTENCES: Final = (
    "You are a helpful assistant. Call the tools that the request needs.\n\n\n  Then answer.\n",
    '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>\n\nIt is clear.',
    '{"name": "weather", "parameters": {"city": "Roma", "days": 12}}\n\n**It is sunny.**  \n',
    "system user assistant tool <tool_response>\n{}\n</tool_response> ünïcode Привет 日本 🌍",
    "'<｜tool▁outputs▁end｜>**Then**' 2024 100 12 3",
)


@dataclass(frozen=True)
class Family:
    """A model family as its folder shows it."""

    template: str
    """File below `templates/`."""
    pieces: str
    """How the tokenizer cuts text: a key of `_PIECES`, or `smollm2`."""
    special: tuple[str, ...]
    """Added tokens that decoding may skip. The first fills the batch."""
    plain: tuple[str, ...]
    """Added tokens that decoding keeps."""
    config: dict[str, Any]
    """What `tokenizer_config.json` says beside the template."""
    said: str
    """Regular expression over the rendered text; its group is what an assistant turn says, with
    the token that ends it."""
    says: Callable[[Message], str]
    """The same, made from the turn as it stands in the row."""

    def source(self) -> str:
        """The template's text."""
        return (TEMPLATES / self.template).read_text(encoding="utf-8")


def _content(end: str) -> Callable[[Message], str]:
    return lambda turn: str(turn["content"]) + end


def _qwen(turn: Message) -> str:
    calls = [
        f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'
        for name, arguments in _called(turn)
    ]
    return "\n".join([*filter(None, [turn["content"]]), *calls]) + "<|im_end|>"


def _llama(turn: Message) -> str:
    for name, arguments in _called(turn):
        return f'{{"name": "{name}", "parameters": {arguments}}}<|eot_id|>'
    return str(turn["content"]).strip() + "<|eot_id|>"


def _moves_tools(turn: Message) -> str:
    calls = [f'{{"name": "{name}", "arguments": {text}}}' for name, text in _called(turn)]
    return (turn["content"] or "") + (f"[TOOL_CALLS][{', '.join(calls)}]" if calls else "") + "</s>"


def _called(turn: Message) -> list[tuple[str, str]]:
    """Name and arguments, as JSON, of each call."""
    functions = [call["function"] for call in turn.get("tool_calls", ())]
    return [(f["name"], json.dumps(f["arguments"], ensure_ascii=False)) for f in functions]


_CHATML: Final = r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"
_LLAMA: Final = r"<\|start_header_id\|>assistant<\|end_header_id\|>\n\n(.*?<\|eot_id\|>)"
_LLAMA_SPECIAL: Final = (
    "<|finetune_right_pad_id|>",
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
_R1_TOOL_TOKENS: Final = tuple(
    f"<｜tool▁{name}｜>"
    for name in (
        *("calls▁begin", "call▁begin", "sep", "call▁end", "calls▁end"),
        *("outputs▁begin", "output▁begin", "output▁end", "outputs▁end"),
    )
)

_LLAMA_3_1: Final = Family(
    template="llama-3.1.jinja",
    pieces="llama",
    special=_LLAMA_SPECIAL,
    plain=(),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        "pad_token": "<|finetune_right_pad_id|>",
    },
    said=_LLAMA,
    says=_llama,
)
_R1_DISTILL: Final = Family(
    template="deepseek-r1-distill.jinja",
    pieces="llama",
    special=("<｜▁pad▁｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<|eot_id|>"),
    plain=("<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"),
    config={
        # Its own says LlamaTokenizerFast; transformers 5 fills that class with other rules than
        # those of tokenizer.json, and spaces are lost.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": {"__type": "AddedToken", "content": "<｜begin▁of▁sentence｜>"},
        "eos_token": {"__type": "AddedToken", "content": "<｜end▁of▁sentence｜>"},
        "pad_token": "<｜▁pad▁｜>",
    },
    said=r"(?:<｜Assistant｜>|<｜tool▁outputs▁end｜>)(.*?<｜end▁of▁sentence｜>)",
    says=_content("<｜end▁of▁sentence｜>"),
)

FAMILIES: Final[dict[str, Family]] = {
    "qwen2.5": Family(
        template="qwen2.5.jinja",
        pieces="qwen",
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"),
        plain=("<tool_call>", "</tool_call>", "<|fim_prefix|>", "<|repo_name|>", "<|file_sep|>"),
        config={
            "tokenizer_class": "Qwen2Tokenizer",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
        },
        said=_CHATML,
        says=_qwen,
    ),
    "llama-3.1": _LLAMA_3_1,
    "llama-3.2": replace(_LLAMA_3_1, template="llama-3.2.jinja"),
    "deepseek-r1": _R1_DISTILL,
    "smollm2": Family(
        template="smollm2.jinja",
        pieces="smollm2",
        special=("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>", "<file_sep>"),
        plain=(),
        config={
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": "<|im_start|>",
            "eos_token": "<|im_end|>",
            "pad_token": "<|im_end|>",
            "unk_token": "<|endoftext|>",
        },
        said=_CHATML,
        says=_content("<|im_end|>"),
    ),
}
"""The families of the contract, by the names that the tests use."""

MOVES_TOOLS: Final = Family(
    template="moves-tools.jinja",
    pieces="llama",
    special=("<pad>", "<s>", "</s>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
    plain=("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]"),
    config={
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "pad_token": "<pad>",
    },
    said=r"\[/(?:INST|TOOL_RESULTS)\]((?!\[TOOL_RESULTS\]).*?</s>)",
    says=_moves_tools,
)

R1_WITH_TOOL_TOKENS: Final = replace(_R1_DISTILL, plain=_R1_DISTILL.plain + _R1_TOOL_TOKENS)
"""As DeepSeek-R1's own vocabulary has them; the distilled models spell them out."""


@cache
def tokenizer_json(pieces: str, special: Sequence[str], plain: Sequence[str]) -> str:
    tokenizer = Tokenizer(models.BPE(ignore_merges=pieces == "llama"))
    if pieces == "qwen":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(pieces)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in special],
        initial_alphabet=pre.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SENTENCES * 5, trainer)
    tokenizer.add_tokens([AddedToken(text, normalized=False, special=False) for text in plain])
    return tokenizer.to_str()


def _pre_tokenizer(pieces: str) -> pre.PreTokenizer:
    if pieces == "smollm2":
        return pre.Sequence(
            [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
        )
    return pre.Sequence(
        [
            pre.Split(Regex(_PIECES[pieces]), behavior="isolated"),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def tokenizer_of(family: Family) -> Tokenizer:
    return Tokenizer.from_str(tokenizer_json(family.pieces, family.special, family.plain))


def family_folder(folder: Path, family: Family, template: str | None = None) -> Path:
    """The folder as the model's repository has it, without weights."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = tokenizer_json(family.pieces, family.special, family.plain)
    (folder / "tokenizer.json").write_text(saved, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(family.config), encoding="utf-8")
    source = family.source() if template is None else template
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return folder


def chat_of(family: Family, template: str | None = None) -> ChatFormat:
    """The family's format, with another template if one is given."""
    with tempfile.TemporaryDirectory() as folder:
        return ChatFormat.load(family_folder(Path(folder), family, template))


@cache
def chat_format(name: str) -> ChatFormat:
    """The format of one of `FAMILIES`, loaded once."""
    return chat_of(FAMILIES[name])
