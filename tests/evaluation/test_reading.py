"""Whoever says exactly what is trained is found right, or is not judged at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from job.config import Settings
from job.dataset import ChatFormat, Row
from job.errors import SettingsError
from job.evaluation import reading as reading_module
from job.evaluation.document import Answer, document
from job.evaluation.forms import Form
from job.evaluation.generate import _answer
from job.evaluation.reading import Reading, read_turns
from job.families import FAMILIES as REAL
from job.promotion.gate import Gate, refuse_unjudgeable
from tests.dataset.standin_families import (
    FAMILIES,
    MOVES_TOOLS,
    chat_format,
    chat_of,
    family_folder,
)

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
QWEN = FAMILIES["qwen2.5"]
TAGS_ARE_SPECIAL = replace(
    QWEN, special=(*QWEN.special, "<tool_call>", "</tool_call>"), plain=QWEN.plain[2:]
)
LLAMA = FAMILIES["llama-3.1"]
UNKNOWN = (
    LLAMA.source()
    .replace("""'{"name": "' + tool_call.name + '", '""", "'CALL ' + tool_call.name + ' WITH '")
    .replace("""{{- '"parameters": ' }}""", "")
    .replace("""{{- "}" }}""", "")
)
"""Writes calls as nobody does."""


def calling(city: str, number: int = 1, **more: Any) -> Row:
    function = {"name": "weather", "arguments": {"city": city}}
    call = {"type": "function", "id": f"a{number:08}", "function": function}
    answer = {"role": "assistant", "content": None, "tool_calls": [call], **more}
    asked = {"role": "user", "content": f"weather in {city}?"}
    return Row("x.jsonl", number, (asked, answer), tools=[TOOL])


def talking() -> Row:
    asked = {"role": "user", "content": "hello"}
    return Row("x.jsonl", 9, (asked, {"role": "assistant", "content": "Hi there."}), tools=[TOOL])


ROWS = [calling("Oslo"), calling("Roma , it's \u00e9", 2), talking()]


def unknown_form() -> Reading:
    return read_turns(chat_of(LLAMA, UNKNOWN), ROWS)


@pytest.mark.parametrize(
    ("family", "form"),
    [
        (QWEN, Form.HERMES),
        (TAGS_ARE_SPECIAL, Form.HERMES),
        (LLAMA, Form.LLAMA),
        (FAMILIES["llama-3.2"], Form.LLAMA),
        (MOVES_TOOLS, Form.MISTRAL),
    ],
)
def test_what_is_trained_is_right_and_a_call_where_none_belongs_is_seen(
    family: Any, form: Form, tmp_path: Path
) -> None:
    """Through the tokens, as a model would say it."""
    folder = family_folder(tmp_path / "model", family)
    reading = read_turns(ChatFormat.load(folder), ROWS)
    assert (reading.unread, reading.not_judged, reading.unknown) == ([], None, False)
    assert {turn.forms for turn in reading.turns} == {(form,)}
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder))
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id

    def said(text: str | None) -> Answer:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        return _answer(tokenizer, [*ids, end, pad, pad], [end])

    right = {number: said(turn.says) for number, turn in enumerate(reading.turns)}
    found = document(reading.turns, None, right)["adapter"]
    assert {name: measure["rate"] for name, measure in found.items()} == dict.fromkeys(
        ("well_formed", "valid_arguments", "right_tool", "exact", "refusal"), 1.0
    )
    always = document(reading.turns, None, dict.fromkeys(right, right[0]))["adapter"]
    assert always["refusal"]["rate"] == 0.0
    assert always["exact"]["rate"] == 0.5


def test_the_form_of_each_family_is_its_servers() -> None:
    for name, standin in (("qwen-2.5", "qwen2.5"), ("llama-3", "llama-3.1")):
        [forms] = {turn.forms for turn in read_turns(chat_format(standin), ROWS).turns}
        assert forms == (REAL[name].tool_call_parser,)


def test_calls_in_the_text_are_read_as_hermes_whatever_the_template() -> None:
    call = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
    answer = {"role": "assistant", "content": call}
    row = Row("x.jsonl", 1, ({"role": "user", "content": "Oslo?"}, answer))
    [turn] = read_turns(chat_of(LLAMA, UNKNOWN), [row]).turns
    assert turn.forms == (Form.HERMES,)


def test_of_a_form_that_is_not_known_there_are_no_figures() -> None:
    reading = unknown_form()
    assert (reading.turns, len(reading.unread), reading.unknown) == ([], 3, True)
    [notice] = reading.notices()
    assert "3 of 3 held-out turns can't be judged" in notice
    assert "x.jsonl:1: messages[1]: 'CALL weather WITH" in notice
    assert reading.fault in notice
    assert "CALL" not in str(reading.not_judged), "it goes into the card, which may be public"
    found = document(reading.turns, {}, {}, not_judged=reading.not_judged)
    assert (found["rows"], found["turns"], found["adapter"], found["base"]) == (0, 3, {}, {})
    assert "can be judged: the chat template" in str(Gate(0.5).verdict(found))


@pytest.mark.parametrize(
    ("gate", "named"),
    [
        ({"gate_min_exact": 0.5}, "FORGE_GATE_MIN_EXACT"),
        ({"gate_min_gain": 0.1}, "FORGE_GATE_MIN_GAIN"),
    ],
)
def test_a_gate_on_it_is_refused(gate: dict[str, Any], named: str) -> None:
    settings = Settings(run_id="r", dataset_uri="/d", output_uri="/o", **gate)
    with pytest.raises(SettingsError) as refused:
        refuse_unjudgeable(settings, unknown_form())
    for said in (named, "CALL weather WITH", "as Hermes does", "FORGE_MODEL_FAMILY"):
        assert said in str(refused.value)
    assert refused.value.exit_code == 78
    refuse_unjudgeable(settings, read_turns(chat_format("llama-3.1"), ROWS))
    no_gate = Settings(run_id="r", dataset_uri="/d", output_uri="/o")
    refuse_unjudgeable(no_gate, unknown_form())


def test_a_text_that_a_server_would_call_by_is_left_out() -> None:
    text = '{"name": "weather", "parameters": {"city": "Oslo"}}'
    asked = {"role": "user", "content": "Oslo, as text?"}
    row = Row("x.jsonl", 4, (asked, {"role": "assistant", "content": text}), tools=[TOOL])
    reading = read_turns(chat_format("llama-3.1"), [*ROWS, row])
    assert [turn.row.line for turn in reading.unread] == [4]
    assert not reading.no_call_is_judged
    assert "would be read as a call" in str(reading.not_judged)


def test_thoughts_that_are_trained_have_their_room(tmp_path: Path) -> None:
    """Counted without them, each right answer was cut off before its call."""
    family = REAL["deepseek-r1"]
    folder = family_folder(tmp_path / "r1", FAMILIES["deepseek-r1"])
    chat = ChatFormat.load(folder, family.chat_template())
    thought = "The user wants the weather, so the tool is needed. " * 60
    row = calling("Oslo", reasoning_content=thought)
    reading = read_turns(chat, [row])
    rendered = chat.render(row)
    [(_, needed)] = chat.read_back([rendered.text[slice(*rendered.spans[0])]])
    assert needed > reading_module.MAX_NEW_TOKENS
    assert reading.max_new_tokens > needed
    assert list(reading.notices()) == []
    assert str(reading.turns[0].says).startswith("<think>")


def test_an_answer_beyond_the_limit_is_warned_of() -> None:
    long = calling("Oslo and " * 600)
    reading = read_turns(chat_format("qwen2.5"), [*ROWS, calling("Lima"), long])
    assert reading.max_new_tokens == reading_module.MAX_NEW_TOKENS
    [notice] = reading.notices()
    assert "1 of 5 held-out turns expect more than the 512 tokens" in notice
    assert "x.jsonl:1: messages[1]" in notice


def test_calls_that_are_mostly_long_have_their_room() -> None:
    """Every right one was cut off, and a gate failed whatever was trained."""
    rows = [calling(f"{number} and " * 600, number) for number in range(3)]
    reading = read_turns(chat_format("qwen2.5"), [*rows, calling("Oslo")])
    assert list(reading.notices()) == []
    assert reading.max_new_tokens > max(said for _, said in reading.lengths)
