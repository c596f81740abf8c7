"""One template and one tokenizer: what was trained with is what the adapter's folder holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from job.dataset import ChatFormat
from tests.dataset.conversations import TOOLS, as_read, user
from tests.dataset.standin import CHATML, PLAIN_CHATML, WEATHER, model_folder
from tests.dataset.standin_families import FAMILIES, family_folder

TEXTS = ["H several rounds", "blanks around texts", "unicode", "long answer"]


def saved_again(folder: Path, out: Path) -> Any:
    """The folder's tokenizer, loaded and saved as the job does for the adapter."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    tokenizer.save_pretrained(str(out))
    return tokenizer


def ids_of(chat: ChatFormat) -> list[list[int]]:
    rendered = [chat.render(as_read()[name]) for name in TEXTS]
    return [sample.input_ids.tolist() for sample in chat.encode(rendered, "assistant")]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_adapter_ships_what_was_trained_with(family: str, tmp_path: Path) -> None:
    folder = family_folder(tmp_path / "model", FAMILIES[family])
    saved_again(folder, tmp_path / "adapter")
    trained, shipped = ChatFormat.load(folder), ChatFormat.load(tmp_path / "adapter")
    assert shipped.template_sha256 == trained.template_sha256
    assert shipped.prompt([user("hi")], None) == trained.prompt([user("hi")], None)
    assert ids_of(shipped) == ids_of(trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_hash_is_the_same_wherever_the_template_stands(family: str, tmp_path: Path) -> None:
    """Older folders hold it in their configuration; saving them again makes a file of it."""
    folder = family_folder(tmp_path / "file", FAMILIES[family])
    older = family_folder(tmp_path / "model", FAMILIES[family])
    source = (older / "chat_template.jinja").read_text(encoding="utf-8")
    (older / "chat_template.jinja").unlink()
    config = FAMILIES[family].config | {"chat_template": source}
    (older / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    saved_again(older, tmp_path / "adapter")
    assert (tmp_path / "adapter" / "chat_template.jinja").is_file()
    hashes = {
        ChatFormat.load(path).template_sha256 for path in (folder, older, tmp_path / "adapter")
    }
    assert len(hashes) == 1


def test_a_template_for_tools_is_part_of_the_hash(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": PLAIN_CHATML},
        {"name": "tool_use", "template": CHATML},
    ]
    folder = model_folder(tmp_path / "model", None, chat_template=named)
    saved_again(folder, tmp_path / "adapter")
    trained, shipped = ChatFormat.load(folder), ChatFormat.load(tmp_path / "adapter")
    assert shipped.template_sha256 == trained.template_sha256
    assert shipped.prompt([user("hi")], [WEATHER]) == trained.prompt([user("hi")], [WEATHER])
    plain = ChatFormat.load(model_folder(tmp_path / "plain", PLAIN_CHATML))
    assert plain.template_sha256 != trained.template_sha256


def test_another_template_is_another_hash(tmp_path: Path) -> None:
    hashes = {
        ChatFormat.load(family_folder(tmp_path / name, family)).template_sha256
        for name, family in FAMILIES.items()
    }
    assert len(hashes) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES)
def test_serving_gives_the_prompt_of_training(family: str, tmp_path: Path) -> None:
    """The adapter's own tokenizer, as a server uses it."""
    folder = family_folder(tmp_path / "model", FAMILIES[family])
    theirs = saved_again(folder, tmp_path / "adapter")
    tools = TOOLS if family in ("qwen2.5", "llama-3.1", "llama-3.2") else None
    served = theirs.apply_chat_template(
        [user("hi")],
        tools=tools,
        tokenize=False,
        add_generation_prompt=True,
        date_string="26 Jul 2024",
    )
    assert served == ChatFormat.load(folder).prompt([user("hi")], tools)
