"""What a model's folder has to hold: a tokenizer, and a chat template in one of several places."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from job.dataset import ChatFormat
from job.errors import SettingsError
from tests.dataset.masked import ASSISTANT, END, HELLO, USER, chat_with
from tests.dataset.standin import CHATML, PLAIN_CHATML, WEATHER, model_folder, row


def test_templates_in_the_configuration(tmp_path: Path) -> None:
    named = [
        {"name": "default", "template": PLAIN_CHATML},
        {"name": "tool_use", "template": CHATML},
    ]
    chat = ChatFormat.load(model_folder(tmp_path / "named", None, chat_template=named))
    assert chat.render(HELLO).text == USER + "Hello" + END + "\n" + ASSISTANT + "Hi." + END + "\n"
    assert "<tools>" in chat.render(row(*HELLO.messages, tools=[WEATHER])).text
    plain = ChatFormat.load(model_folder(tmp_path / "plain", None, chat_template=PLAIN_CHATML))
    assert plain.render(HELLO) == chat.render(HELLO)
    assert plain.template_sha256 != chat.template_sha256


def test_a_file_wins_over_the_configuration(tmp_path: Path) -> None:
    chat = ChatFormat.load(model_folder(tmp_path / "both", CHATML, chat_template=PLAIN_CHATML))
    only = ChatFormat.load(model_folder(tmp_path / "one", CHATML))
    assert chat.template_sha256 == only.template_sha256


def test_special_tokens_are_template_variables(tmp_path: Path) -> None:
    template = PLAIN_CHATML.replace("'<|im_end|>\\n'", "eos_token + '\\n'")
    chat = chat_with(tmp_path, template)
    assert chat.render(HELLO).text.endswith("Hi.<|im_end|>\n")


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda folder: (folder / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "is not a tokenizer"),
        (lambda folder: (folder / "chat_template.jinja").unlink(), "has no chat template"),
        (lambda folder: (folder / "chat_template.jinja").write_text("{% if %}"), "fails"),
        (lambda folder: (folder / "chat_template.jinja").write_text("x"), "doesn't show each turn"),
        (lambda folder: (folder / "chat_template.jinja").write_bytes(b"\xff"), "can't be read"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("{"), "is not JSON"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("[]"), "not a JSON object"),
    ],
)
def test_an_unusable_model_folder_is_a_setting_to_mend(
    spoil: Any, found: str, tmp_path: Path
) -> None:
    spoil(model_folder(tmp_path))
    with pytest.raises(SettingsError, match=found) as error:
        ChatFormat.load(tmp_path)
    assert error.value.problems[0].where == "FORGE_MODEL"
    assert str(tmp_path) in str(error.value)


def test_a_model_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is not a folder"):
        ChatFormat.load(tmp_path / "nowhere")
