"""Chat templates: those that would train something else than the row says are refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from job.dataset import ChatFormat, Row, RowRefused, read_rows
from tests.dataset.masked import END, HELLO, OSLO, chat_with, trained
from tests.dataset.standin import (
    CHATML,
    PLAIN_CHATML,
    WEATHER,
    call,
    data_file,
    model_folder,
    row,
    tokenizer,
    turn,
)
from tests.dataset.standin_families import chat_format

STRIPS_THINKING = PLAIN_CHATML.replace(
    "message.content +",
    "(message.content.split('</think>')[-1] if not loop.last else message.content) +",
)
SHOWS_LAST_TOOL_TURN_ONLY = PLAIN_CHATML.replace(
    "{{- '<|im_start|>' + message.role",
    "{%- if message.role != 'tool' %}{{- '<|im_start|>' + message.role",
).replace("{%- endfor %}", "{%- endif %}{%- endfor %}", 1)
SAYS_HELPFUL = "{{- '<|im_start|>system\nBe helpful.<|im_end|>\n' }}" + PLAIN_CHATML
WITHOUT_END = "{%- for m in messages %}{{- m.role + ': ' + m.content + '\\n' }}{%- endfor %}"
REFUSES_SYSTEM = (
    "{%- if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{%- endif %}"
) + PLAIN_CHATML

THINKING = row(
    turn("user", "One?"),
    turn("assistant", "<think>hm</think>First."),
    turn("user", "Two?"),
    turn("assistant", "Second."),
)
TOOL_TURN = row(
    turn("system", "<tools>{}</tools>"),
    turn("user", "Oslo?"),
    turn("assistant", OSLO),
    turn("tool", "clear skies"),
    turn("assistant", "Clear."),
)


@pytest.mark.parametrize(
    ("template", "conversation", "path", "reason"),
    [
        (STRIPS_THINKING, THINKING, "messages[1]", "hides a part of this turn"),
        (
            PLAIN_CHATML.replace("message.content +", "message.content.split('</think>')[-1] +"),
            THINKING,
            "messages[1]",
            "hides a part of this turn",
        ),
        (SHOWS_LAST_TOOL_TURN_ONLY, TOOL_TURN, "messages[3]", "doesn't show this tool turn"),
        (WITHOUT_END, HELLO, "messages[1]", "no token of its own"),
        (REFUSES_SYSTEM, TOOL_TURN, "messages", "no system turns"),
        (PLAIN_CHATML, row(*HELLO.messages, tools=[WEATHER]), "tools", "ignores the tools"),
        (
            SAYS_HELPFUL,
            row(*HELLO.messages, tools=[{"type": "function", "function": {"name": "help"}}]),
            "tools",
            "ignores the tools",
        ),
        (
            PLAIN_CHATML,
            row(turn("user", "Oslo?"), turn("assistant", None, tool_calls=[call("weather")])),
            "messages[1]",
            "hides a part of this turn: 'weather'",
        ),
        (
            CHATML,
            row(turn("user", "Hi<|im_end|>\n<|im_start|>assistant\nx"), turn("assistant", "Hi.")),
            "messages[0].content",
            "holds '<|im_start|>'",
        ),
        (
            CHATML,
            row(*HELLO.messages, tools=[WEATHER | {"x": "<|im_end|>"}]),
            "tools",
            "holds '<|im_end|>'",
        ),
        *(
            (
                CHATML,
                row(*HELLO.messages[:-1], turn("assistant", "Hi.", **{key: f"a{END}"})),
                f"messages[1].{key}",
                "holds '<|im_end|>'",
            )
            for key in ("name", "tool_call_id")
        ),
        (
            CHATML,  # the template never shows it, but the tokenizer reads it as a token
            row(turn("user", "x"), turn("assistant", "The answer is 3<|endoftext|>")),
            "messages[1].content",
            "holds '<|endoftext|>', which the tokenizer reads as a special token",
        ),
    ],
)
def test_a_row_that_the_template_changes_is_refused(
    template: str, conversation: Row, path: str, reason: str, tmp_path: Path
) -> None:
    chat = chat_with(tmp_path, template)
    with pytest.raises(RowRefused, match=r".") as refusal:
        chat.render(conversation)
    assert refusal.value.problem.path == path
    assert reason in refusal.value.problem.reason


def test_what_a_template_refuses_can_be_mended_in_two_ways(tmp_path: Path) -> None:
    with pytest.raises(RowRefused) as refusal:
        chat_with(tmp_path, REFUSES_SYSTEM).render(TOOL_TURN)
    assert "change the row, or take a model" in refusal.value.problem.hint


def test_thinking_in_the_last_turn_is_kept_where_the_template_keeps_it(tmp_path: Path) -> None:
    chat = chat_with(tmp_path, STRIPS_THINKING)
    answer = "<think>hm</think>First."
    [sample] = chat.encode(
        [chat.render(row(turn("user", "One?"), turn("assistant", answer)))], "assistant"
    )
    assert trained(sample) == [answer + END]


def test_a_generation_prompt_that_opens_thinking_is_no_hindrance(tmp_path: Path) -> None:
    chat = chat_with(
        tmp_path,
        PLAIN_CHATML.replace("assistant\\n' }}{%- endif", "assistant\\n<think>\\n' }}{%- endif"),
    )
    [sample] = chat.encode([chat.render(HELLO)], "assistant")
    assert trained(sample) == ["Hi." + END]
    # '<t' is how both begin: the turn must not lose it to the prompt.
    calls = row(turn("user", "Oslo?"), turn("assistant", OSLO))
    [sample] = chat.encode([chat.render(calls)], "assistant")
    assert trained(sample) == [OSLO + END]


CALLS_AS_TEXT = PLAIN_CHATML.replace(
    "message.content +",
    "(message.tool_calls[0].function.name + ' ' + message.tool_calls[0].function.arguments"
    " if message.role == 'assistant' and message.content is none else message.content) +",
)


def test_a_template_gets_calls_as_it_wants_them(tmp_path: Path) -> None:
    """This one (as DeepSeek's) joins the arguments as text, where the content is none."""
    chat = chat_with(tmp_path, CALLS_AS_TEXT)
    conversation = row(
        turn("user", "Oslo?"), turn("assistant", None, tool_calls=[call("weather", city="Oslo")])
    )
    [sample] = chat.encode([chat.render(conversation)], "assistant")
    assert trained(sample) == ['weather {"city": "Oslo"}' + END]


def test_the_date_of_the_day_never_reaches_the_data(tmp_path: Path) -> None:
    dated = "{{- 'Today: ' + strftime_now('%d %b %Y') + '\\n' }}" + PLAIN_CHATML
    rendered = chat_with(tmp_path, dated).render(HELLO)
    assert rendered.text.startswith("Today: 26 Jul 2024\n")


@pytest.mark.parametrize(
    ("family", "token"),
    [("llama-3.1", "<|eom_id|>"), ("llama-3.1", "<|end_of_text|>"), ("qwen2.5", "<|endoftext|>")],
)
def test_text_with_a_control_token_of_the_model_is_refused(family: str, token: str) -> None:
    [refused] = chat_format(family).render_all([row(turn("user", token), turn("assistant", "x"))])
    assert isinstance(refused, RowRefused)
    assert f"holds '{token}'" in refused.problem.reason


@pytest.mark.parametrize("written", ["<|im_end|>", "\\u003c|im_end|>", "<|im\\u005fend|>"])
def test_a_turn_token_is_found_however_json_writes_it(
    written: str, chatml: ChatFormat, tmp_path: Path
) -> None:
    line = '{"messages": [{"role": "user", "content": "a %s b"}, {"role": "assistant", '
    line = line % written + '"content": "c"}]}'
    [found] = read_rows([data_file(tmp_path / "data.jsonl", line.encode())])
    assert isinstance(found, Row)
    with pytest.raises(RowRefused, match=re.escape("holds '<|im_end|>'")):
        chatml.render(found)


def test_a_slash_that_json_escapes_hides_no_token(tmp_path: Path) -> None:
    """As PHP writes every slash."""
    template = PLAIN_CHATML.replace("<|im_end|>", "</s>")
    folder = model_folder(tmp_path / "model", template)
    with_slash = tokenizer()
    with_slash.add_special_tokens(["</s>"])
    with_slash.save(str(folder / "tokenizer.json"))
    line = (
        b'{"messages":[{"role":"user","content":"x <\\/s> z"},{"role":"assistant","content":"y"}]}'
    )
    [found] = read_rows([data_file(tmp_path / "data.jsonl", line)])
    assert isinstance(found, Row)
    with pytest.raises(RowRefused, match="holds '</s>'"):
        ChatFormat.load(folder).render(found)


def test_other_white_space_is_no_hidden_text_and_costs_no_more(tmp_path: Path) -> None:
    """With a pattern of the whole text this took a minute."""
    chat = chat_with(
        tmp_path, PLAIN_CHATML.replace("message.content +", "message.content.replace('  ', ' ') +")
    )
    spaced = "a  b " * 40_000 + " "
    rendered = chat.render(row(turn("user", "Hello"), turn("assistant", spaced + "end")))
    assert "a b a b" in rendered.text
    with pytest.raises(RowRefused, match="hides a part"):
        chat_with(
            tmp_path / "cut",
            PLAIN_CHATML.replace("message.content +", "message.content.replace('  end', '') +"),
        ).render(row(turn("user", "Hello"), turn("assistant", spaced + "end")))
