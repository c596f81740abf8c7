"""Templates that move, merge, hide or rewrite turns: what of a row may be trained, and what not."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Final

import pytest

from job.dataset import ChatFormat, Row, RowRefused
from tests.dataset.conversations import (
    CONVERSATIONS,
    as_read,
    user,
    written,
)
from tests.dataset.masks import (
    expected_labels,
    said_by,
    said_in,
    stretches,
    text_of,
)
from tests.dataset.standin_families import (
    FAMILIES,
    MOVES_TOOLS,
    R1_WITH_TOOL_TOKENS,
    Family,
    chat_format,
    chat_of,
    tokenizer_of,
)

OTHERWISE: Final = "differently once the conversation goes on"


def proven(family: Family, chat: ChatFormat, conversation: Row) -> list[str]:
    """What is trained, after every token's label was compared with the expected one."""
    tokenizer = tokenizer_of(family)
    [sample] = chat.encode([chat.render(conversation)], "assistant")
    ids = sample.input_ids.tolist()
    assert said_in(family, text_of(tokenizer, ids)) == said_by(family, conversation)
    assert sample.labels.tolist() == expected_labels(family, tokenizer, ids)
    return [stretch.text for stretch in stretches(tokenizer, sample) if stretch.trained]


# Tools and system turn before the last user turn.

MOVED: Final = {
    "several answers": "messages[2]",
    "unicode": "messages[2]",
    "blanks around texts": "messages[2]",
    "H several rounds": "messages[2]",
    "O several rounds": "messages[2]",
    "O tools, several turns": "messages[2]",
}
"""Two user turns, and something that stands before the last one only."""
OTHER_REASONS: Final = {
    "O reasons apart": ("messages[1]", "hides a part of this turn: 'two and two'"),
    "words that look like markers": ("messages[1].content", "holds '</s>'"),
}


@pytest.fixture(scope="module")
def moves_tools() -> ChatFormat:
    return chat_of(MOVES_TOOLS)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_what_moves_between_turns_is_trained_only_where_it_stands_still(
    name: str, moves_tools: ChatFormat
) -> None:
    if name not in MOVED and name not in OTHER_REASONS:
        assert proven(MOVES_TOOLS, moves_tools, as_read()[name])
        return
    path, reason = OTHER_REASONS.get(name) or (MOVED[name], OTHERWISE)
    with pytest.raises(RowRefused, match=r".") as refusal:
        moves_tools.render(as_read()[name])
    assert refusal.value.problem.path == path
    assert reason in refusal.value.problem.reason


def test_moved_tools_and_system_turn_are_not_trained(moves_tools: ChatFormat) -> None:
    text = moves_tools.render(as_read()["O one call"]).text
    assert text.startswith('<s>[AVAILABLE_TOOLS][{"type": "function"')
    assert "[/AVAILABLE_TOOLS][INST]sysword: be brief.\n\nuserword oslo[/INST]" in text
    assert proven(MOVES_TOOLS, moves_tools, as_read()["O one call"]) == [
        '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}]</s>',
        "Clear.</s>",
    ]


# Qwen2.5 puts neighboring tool turns into one user block.


@pytest.mark.parametrize("name", ["H parallel calls", "O parallel calls"])
def test_merged_tool_turns_are_not_trained(name: str) -> None:
    text = chat_format("qwen2.5").render(as_read()[name]).text
    assert (
        '<|im_start|>user\n<tool_response>\n{"toolword": "clear"}\n</tool_response>\n'
        '<tool_response>\n{"toolword": "rain"}\n</tool_response><|im_end|>\n<|im_start|>assistant\n'
    ) in text
    oslo, roma = written("weather", city="Oslo"), written("weather", city="Roma")
    assert proven(FAMILIES["qwen2.5"], chat_format("qwen2.5"), as_read()[name]) == [
        f"{oslo}\n{roma}<|im_end|>",
        "Clear, and rain.<|im_end|>",
    ]


# Llama 3 puts the tools into the first user turn, and a date into a system turn of its own.


@pytest.mark.parametrize("family", ["llama-3.1", "llama-3.2"])
def test_tools_in_the_user_turn_are_not_trained(family: str) -> None:
    text = chat_format(family).render(as_read()["O one call"]).text
    system, first_user = text.split("<|eot_id|>")[:2]
    assert system.endswith("Today Date: 26 Jul 2024\n\nsysword: be brief.")
    assert first_user.startswith("<|start_header_id|>user<|end_header_id|>\n\nGiven the following")
    assert "declaredword" in first_user
    assert first_user.endswith("userword oslo")
    assert proven(FAMILIES[family], chat_format(family), as_read()["O one call"]) == [
        '{"name": "weather", "parameters": {"city": "Oslo"}}<|eot_id|>',
        "Clear.<|eot_id|>",
    ]


@pytest.mark.parametrize("family", ["llama-3.1", "llama-3.2"])
def test_blanks_that_the_template_trims_are_not_trained(family: str) -> None:
    assert proven(FAMILIES[family], chat_format(family), as_read()["blanks around texts"]) == [
        "Ends with blanks.<|eot_id|>",
        "Starts with blanks<|eot_id|>",
    ]


# DeepSeek-R1 drops thinking, and shows tools' answers without a header.


def test_an_answer_to_tools_keeps_its_thinking() -> None:
    family, chat = FAMILIES["deepseek-r1"], chat_format("deepseek-r1")
    text = chat.render(as_read()["H thinks after the tool"]).text
    assert '<｜tool▁output▁begin｜>{"toolword": "clear"}<｜tool▁output▁end｜>' in text
    assert proven(family, chat, as_read()["H thinks after the tool"])[-1] == (
        "<think>\nclear, then\n</think>\n\nClear.<｜end▁of▁sentence｜>"
    )


R1_FIRST_RELEASE: Final = "b6835114b7303ddd78919a82e4d9f7d8c26ed0d7dfc36beeb12d524f6144eab1"
"""SHA-256 of its template."""


def test_the_first_release_of_r1_gives_the_same_text() -> None:
    """Its generation prompt alone was another: it didn't open the thinking."""
    family = FAMILIES["deepseek-r1"]
    source = family.source().replace("<think>\\n", "")
    assert hashlib.sha256(source.encode()).hexdigest() == R1_FIRST_RELEASE
    first = chat_of(family, source)
    now = chat_format("deepseek-r1")
    for name in ("several answers", "H several rounds"):
        conversation = as_read()[name]
        rendered = first.render(conversation)
        assert replace(rendered, begun="<think>\n") == now.render(conversation)
        assert not rendered.begun
        assert proven(family, first, conversation)
    question = [user("hello")]
    assert now.prompt(question, None) == first.prompt(question, None) + "<think>\n"
    with pytest.raises(RowRefused, match="hides a part of this turn: '<think>"):
        first.render(as_read()["thinks"])


def test_tool_tokens_of_its_own_change_nothing_for_texts() -> None:
    """DeepSeek-R1's vocabulary has them, that of the distilled models spells them out."""
    chat = chat_of(R1_WITH_TOOL_TOKENS)
    for name in ("H one call", "H parallel calls", "H several rounds", "H thinks after the tool"):
        proven(R1_WITH_TOOL_TOKENS, chat, as_read()[name])
