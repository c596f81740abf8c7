"""Each form of a call, as servers read it."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from job.dataset import ToolReader
from job.dataset.rows.hermes import Malformed, ToolCall
from job.dataset.rows.row import Problems
from job.evaluation.calls import score
from job.evaluation.forms import Form, read_calls

A, B = ToolCall("f", {"a": 1}), ToolCall("g", {})


@pytest.mark.parametrize(
    ("form", "text", "calls"),
    [
        (Form.LLAMA, '{"name": "f", "parameters": {"a": 1}}', [A]),
        (Form.LLAMA, '{"name": "f", "arguments": {"a": 1}}', [A]),
        (Form.LLAMA, '<|python_tag|>{"name": "f", "parameters": {"a": 1}}', [A]),
        (Form.LLAMA, '{"type": "function", "name": "f", "parameters": {"a": 1}}', [A]),
        (Form.LLAMA, 'I look: {"name": "f", "parameters": {"a": 1}}', [A]),
        (
            Form.LLAMA,
            '{"name": "f", "parameters": {"a": 1}}; {"name": "g", "parameters": {}}',
            [A, B],
        ),
        (Form.LLAMA, "No tool fits.", []),
        (Form.LLAMA, 'It is {"temperature": 3} in {city}.', []),
        (Form.LLAMA, '{"name": "Bob"}', []),
        (Form.MISTRAL, '[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "x"}]', [A]),
        (
            Form.MISTRAL,
            'Yes[TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]',
            [A, B],
        ),
        (Form.MISTRAL, '[TOOL_CALLS]f{"a": 1}[TOOL_CALLS]g{}', [A, B]),
        (Form.MISTRAL, '[TOOL_CALLS]f[CALL_ID]a1[ARGS]{"a": 1}', [A]),
        (Form.MISTRAL, '[{"name": "f", "arguments": {}}]', []),
        (Form.HERMES, '{"name": "f", "arguments": {"a": 1}}', []),
    ],
)
def test_calls_are_read(form: Form, text: str, calls: list[ToolCall]) -> None:
    assert read_calls(text, (form,)) == calls


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Form.LLAMA, '{"name": "f", "parameters": {"a": 1}'),
        (Form.LLAMA, '{"name": "f", "parameters": [1]}'),
        (Form.LLAMA, '{"name": 1, "parameters": {}}'),
        (Form.LLAMA, '{"name": "f", "parameters": {"a": NaN}}'),
        (Form.LLAMA, "<|python_tag|>print(1)"),
        (Form.LLAMA, '{"name": "f", "parameters": {}} {"a": 1}'),
        (Form.LLAMA, '{"name": "f", "parameters": ' + '{"a": ' * 4000),
        (Form.LLAMA, '{"name": "f", "parameters": {"\\ud83d": 1}}'),
        (Form.MISTRAL, '[TOOL_CALLS]f{"\\ud83d": 1}'),
        (Form.MISTRAL, "[TOOL_CALLS]"),
        (Form.MISTRAL, "[TOOL_CALLS][]"),
        (Form.MISTRAL, "[TOOL_CALLS]f"),
        (Form.MISTRAL, '[TOOL_CALLS]f{"a": 1'),
        (Form.MISTRAL, '[TOOL_CALLS][{"name": "f", "arguments": {}}] Done.'),
        (Form.MISTRAL, '[TOOL_CALLS]["f"]'),
    ],
)
def test_what_was_meant_as_a_call_and_is_none(form: Form, text: str) -> None:
    assert any(isinstance(call, Malformed) for call in read_calls(text, (form,)))
    refusing = {"role": "assistant", "content": "No."}
    judged = score(refusing, text, forms=(form,))
    assert (judged.called, judged.well_formed, judged.refused_rightly) == (True, False, False)


def test_the_first_form_that_finds_a_call_counts() -> None:
    text = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    assert read_calls(text, tuple(Form)) == [A]
    assert read_calls('[TOOL_CALLS]f{"a": 1}', tuple(Form)) == [A]
    assert read_calls('{"name": "f", "parameters": {"a": 1}}', tuple(Form)) == [A]


@pytest.mark.parametrize("text", ['{"name": "f", "parameters": %s}', "[TOOL_CALLS]f%s"])
@pytest.mark.parametrize("key", ["\\ud83d", "\ud83d"])
def test_half_a_character_in_a_key_ends_no_evaluation(text: str, key: str) -> None:
    """No schema can be asked of it."""
    tools = ToolReader().from_key([{"name": "f", "parameters": {"type": "object"}}], Problems())
    expected = {"role": "assistant", "content": "", "tool_calls": [{"function": asdict(A)}]}
    found = score(expected, text % f'{{"{key}": 1}}', tools, forms=tuple(Form))
    assert (found.called, found.well_formed, found.valid) == (True, False, False)
