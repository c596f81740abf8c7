"""The masks of the model families' own chat templates, token by token, on every conversation.

The expected labels come from the ids and the template's markers (`masks.py`), not from rendering.
"""

from __future__ import annotations

import hashlib
import tempfile
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.dataset import RowRefused, Sample
from tests.dataset.conversations import CONVERSATIONS, OUTSIDE, as_read
from tests.dataset.masks import (
    as_read_by,
    expected_labels,
    said_by,
    said_in,
    stretches,
    text_of,
)
from tests.dataset.standin import row, turn
from tests.dataset.standin_families import (
    FAMILIES,
    TEMPLATES,
    chat_format,
    family_folder,
    tokenizer_of,
)

_HIDES: Final = "hides a part of this turn"
_IGNORES: Final = "ignores the tools"
_R1_CALLS: Final = (
    f"{_HIDES}|{_IGNORES}|no token of its own|differently once the conversation goes on"
)
"""DeepSeek-R1's template neither shows tools nor ends a single call; whichever is found first."""

_NO_TOOLS: Final = {
    "O tools, but no call": ("tools", _IGNORES),
    "O tools, several turns": ("tools", _IGNORES),
}
_LLAMA: Final = {
    "O parallel calls": ("messages", "only supports single tool-calls at once"),
    "O three parallel calls": ("messages", "only supports single tool-calls at once"),
    "O text and a call": ("messages[1]", f"{_HIDES}: 'Let me look.'"),
    "O reasons apart": ("messages[1]", f"{_HIDES}: 'two and two'"),
}
_CALLS: Final = {
    "O one call": 2,
    "O one call, no system turn, no ids": 1,
    "O ends with a call": 1,
    "O parallel calls": 2,
    "O three parallel calls": 1,
    "O text and a call": 1,
    "O several rounds": 2,
    "O nothing as arguments": 1,
}
"""Rows with `tool_calls`, and which turn is the first with them."""

REFUSED: Final[dict[str, dict[str, tuple[str | None, str]]]] = {
    "qwen2.5": {"O reasons apart": ("messages[1]", f"{_HIDES}: 'two and two'")},
    "llama-3.1": dict(_LLAMA),
    "llama-3.2": dict(_LLAMA),
    "deepseek-r1": {
        "thinks": ("messages[1]", f"{_HIDES}: '<think> hm, 2"),
        "thought before": ("messages[1]", f"{_HIDES}: '<think> hm </think> Four.'"),
        "H thinks before the call": ("messages[2]", f"{_HIDES}: '<think> look"),
        "O reasons apart": ("messages[1]", f"{_HIDES}: 'two and two'"),
        **dict.fromkeys(_CALLS, (None, _R1_CALLS)),
        **_NO_TOOLS,
    },
    "smollm2": {
        "O reasons apart": ("messages[1]", f"{_HIDES}: 'two and two'"),
        **{name: (f"messages[{i}]", f"{_HIDES}: 'weather'") for name, i in _CALLS.items()},
        **_NO_TOOLS,
    },
}
"""Family → conversation → where and why it can't be trained on. All others can."""

ACCEPTED: Final = [
    (family, name) for family in FAMILIES for name in CONVERSATIONS if name not in REFUSED[family]
]

SHA256: Final = {
    "qwen2.5.jinja": "cd8e9439f0570856fd70470bf8889ebd8b5d1107207f67a5efb46e342330527f",
    "llama-3.1.jinja": "e10ca381b1ccc5cf9db52e371f3b6651576caee0a630b452e2816b2d404d4b65",
    "llama-3.2.jinja": "5816fce10444e03c2e9ee1ef8a4a1ea61ae7e69e438613f3b17b69d0426223a4",
    "deepseek-r1-distill.jinja": "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f",
    "smollm2.jinja": "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788",
}
"""Of the chat templates that the models' repositories ship."""


def encoded(family: str, name: str, loss_on: Any = "assistant") -> Sample:
    chat = chat_format(family)
    [sample] = chat.encode([chat.render(as_read()[name])], loss_on)
    return sample


@cache
def transformers_tokenizer(family: str) -> Any:
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as folder:
        return AutoTokenizer.from_pretrained(family_folder(Path(folder), FAMILIES[family]))


@pytest.mark.parametrize("name", SHA256)
def test_the_templates_are_those_of_the_models(name: str) -> None:
    assert hashlib.sha256((TEMPLATES / name).read_bytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize(("family", "name"), ACCEPTED)
def test_exactly_the_tokens_of_the_assistants_turns_are_trained(family: str, name: str) -> None:
    of, tokenizer = FAMILIES[family], tokenizer_of(FAMILIES[family])
    sample = encoded(family, name)
    ids = sample.input_ids.tolist()
    text = text_of(tokenizer, ids)
    assert text == as_read_by(of, chat_format(family).render(as_read()[name]).text)
    # The markers find every turn of the row, whole, with its calls and the token that ends it.
    assert said_in(of, text) == said_by(of, as_read()[name])
    assert sample.labels.tolist() == expected_labels(of, tokenizer, ids)


@pytest.mark.parametrize(("family", "name"), ACCEPTED)
def test_what_is_trained_reads_as_the_row_and_nothing_else_does(family: str, name: str) -> None:
    of = FAMILIES[family]
    found = stretches(tokenizer_of(of), encoded(family, name))
    trained = [stretch.text for stretch in found if stretch.trained]
    untrained = [stretch.text for stretch in found if not stretch.trained]
    assert not any(word in text for word in OUTSIDE for text in trained)
    for said, text, before in zip(
        said_by(of, as_read()[name]), trained, untrained[: len(trained)], strict=True
    ):
        # White space at the start may share a token with the header's last line end.
        shared = said.removesuffix(text)
        assert said == shared + text
        assert not shared.strip() or family == "deepseek-r1"
        assert before.endswith((_HEADERS[family] + shared, _AFTER_TOOLS + shared))
    everything = "".join(stretch.text for stretch in found)
    assert all(word in everything for word in OUTSIDE if word in str(CONVERSATIONS[name]))


_HEADERS: Final = {
    "qwen2.5": "<|im_start|>assistant\n",
    "llama-3.1": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llama-3.2": "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "deepseek-r1": "<｜Assistant｜>",
    "smollm2": "<|im_start|>assistant\n",
}
_AFTER_TOOLS: Final = "<｜tool▁outputs▁end｜>"
"""DeepSeek-R1 gives an answer to tools no header of its own."""


@pytest.mark.parametrize("family", FAMILIES)
def test_every_token_is_trained_if_the_loss_is_on_all(family: str) -> None:
    for name in ("several answers", "H several rounds"):
        sample = encoded(family, name, "all")
        assert sample.labels.tolist() == sample.input_ids.tolist()
        assert sample.input_ids.tolist() == encoded(family, name).input_ids.tolist()


@pytest.mark.parametrize(("family", "name"), ACCEPTED)
def test_the_ids_are_those_of_transformers(family: str, name: str) -> None:
    conversation = as_read()[name]
    theirs = transformers_tokenizer(family).apply_chat_template(
        list(conversation.messages),
        tools=conversation.tools,
        tokenize=True,
        return_dict=True,
        date_string="26 Jul 2024",  # what Llama 3 prints if nobody tells it the day
    )
    assert encoded(family, name).input_ids.tolist() == theirs["input_ids"]


@pytest.mark.parametrize(("family", "name"), ACCEPTED)
def test_an_answer_is_trained_after_the_prompt_that_serving_gives(family: str, name: str) -> None:
    chat, conversation = chat_format(family), as_read()[name]
    rendered = chat.render(conversation)
    for index, (start, _) in zip(conversation.assistant_turns, rendered.spans, strict=True):
        prompt = chat.prompt(conversation.messages[:index], conversation.tools)
        if family == "deepseek-r1" and not prompt.endswith(_AFTER_TOOLS):
            # It opens the thinking for the model; data without any are trained without.
            prompt = prompt.removesuffix("<think>\n")
        assert rendered.text[:start] == prompt


@pytest.mark.parametrize(
    ("family", "name"), [(family, name) for family in FAMILIES for name in REFUSED[family]]
)
def test_rows_that_a_template_changes_are_refused(family: str, name: str) -> None:
    path, reason = REFUSED[family][name]
    with pytest.raises(RowRefused, match=reason) as refusal:
        chat_format(family).render(as_read()[name])
    assert path in (None, refusal.value.problem.path)


_TEXTS = st.text(
    st.one_of(
        st.sampled_from(" \n\t\r.,{}[]\"'*<>|1234abc"),
        st.sampled_from("e\u0301\u0308\u1112\u1161\u11ab\u200d🌍é日\xa0\u2028"),
        st.characters(exclude_categories=["Cs"], exclude_characters="\0"),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(
    family=st.sampled_from(sorted(FAMILIES)),
    system=st.none() | _TEXTS,
    turns=st.lists(st.tuples(_TEXTS, _TEXTS.filter(str.strip)), min_size=1, max_size=3),
)
def test_whatever_is_said_exactly_the_answers_are_trained(
    family: str, system: str | None, turns: list[tuple[str, str]]
) -> None:
    messages = [] if system is None else [turn("system", system)]
    for question, answer in turns:
        messages += [turn("user", question), turn("assistant", answer)]
    of, tokenizer, chat = FAMILIES[family], tokenizer_of(FAMILIES[family]), chat_format(family)
    [sample] = chat.encode([chat.render(row(*messages))], "assistant")
    ids = sample.input_ids.tolist()
    assert ids == _plainly_encoded(family, chat.render(row(*messages)).text)
    assert said_in(of, text_of(tokenizer, ids)) == said_by(of, row(*messages))
    assert sample.labels.tolist() == expected_labels(of, tokenizer, ids)


def _plainly_encoded(family: str, text: str) -> list[int]:
    return list(tokenizer_of(FAMILIES[family]).encode(text, add_special_tokens=False).ids)
