"""A tokenizer that encodes as the model's `tokenizer.json` says.

transformers 5 builds the fast tokenizers of some classes anew, with a pre-tokenizer of the class:
a folder that says `LlamaTokenizerFast` but holds a byte-level vocabulary (DeepSeek-R1-Distill-Llama
and its copies) loses its spaces and line ends, and saving it writes the damage into
`tokenizer.json` (huggingface/transformers 45488, 46710).
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

_log = logging.getLogger(__name__)

_PROBES: Final = (
    "hello world\n  how are\tyou?\n\n",
    '<tool_call>\n{"name": "wéather", "arguments": {"day": 12345}}\n</tool_call>',
    " 東京の天気 🌍 it's 3.14!",
)


def faithful(tokenizer: Any, model_dir: Path) -> Any:
    """`tokenizer` if it gives the same tokens as `model_dir`'s `tokenizer.json`, else one that
    does."""
    path = model_dir / "tokenizer.json"
    if not path.is_file() or _agrees(tokenizer, path):
        return tokenizer
    from transformers import PreTrainedTokenizerFast

    _log.warning(
        "transformers' %s encodes differently from the model's tokenizer.json; the file is "
        "followed",
        type(tokenizer).__name__,
    )
    plain = PreTrainedTokenizerFast.from_pretrained(str(model_dir), local_files_only=True)
    if plain.pad_token is None:
        plain.pad_token = tokenizer.pad_token
    if not _agrees(plain, path):
        raise ValueError(f"{path} can't be followed by transformers")
    return plain


def _agrees(tokenizer: Any, path: Path) -> bool:
    original = Tokenizer.from_file(str(path))
    original.no_truncation()
    return all(
        tokenizer(text, add_special_tokens=False)["input_ids"]
        == original.encode(text, add_special_tokens=False).ids
        for text in _PROBES
    )
