"""Generation and the published adapter encode as the model's `tokenizer.json`, as training does."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from job.engines.tokenizer import faithful
from tests.dataset.standin_families import FAMILIES, family_folder

TEXT = "hello world\nhow are you?"


def folder_of_class(folder: Path, name: str) -> Path:
    """The stand-in of DeepSeek-R1-Distill-Llama, its tokenizer of the class `name`."""
    family_folder(folder, FAMILIES["deepseek-r1"])
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": name}))
    return folder


def ids(folder: Path) -> list[int]:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    found: list[int] = tokenizer.encode(TEXT, add_special_tokens=False).ids
    return found


def test_a_class_that_changes_the_tokens_is_replaced(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = folder_of_class(tmp_path / "model", "LlamaTokenizerFast")
    theirs = AutoTokenizer.from_pretrained(str(folder))
    assert theirs(TEXT, add_special_tokens=False)["input_ids"] != ids(folder), "mended upstream"
    with caplog.at_level(logging.WARNING):
        ours = faithful(theirs, folder)
    assert "encodes differently" in caplog.text
    assert ours(TEXT, add_special_tokens=False)["input_ids"] == ids(folder)
    assert (ours.eos_token, ours.bos_token) == (theirs.eos_token, theirs.bos_token)
    ours.save_pretrained(str(tmp_path / "adapter"))
    assert ids(tmp_path / "adapter") == ids(folder)
    again = AutoTokenizer.from_pretrained(str(tmp_path / "adapter"))
    assert again(TEXT, add_special_tokens=False)["input_ids"] == ids(folder)
    assert again.chat_template == theirs.chat_template


def test_a_class_that_does_not_is_kept(tmp_path: Path) -> None:
    folder = folder_of_class(tmp_path, "PreTrainedTokenizerFast")
    theirs = AutoTokenizer.from_pretrained(str(folder))
    assert faithful(theirs, folder) is theirs
