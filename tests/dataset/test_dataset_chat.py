"""Exactly the assistant's turns are trained: proven token by token against text cut by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from job.dataset import ChatFormat, Row, RowRefused, read_rows
from job.dataset.tokens.samples import IGNORED, Sample
from job.errors import SettingsError
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

Piece = tuple[str, bool]
"""Text, and whether it is trained."""

SYSTEM = "<|im_start|>system\n"
USER = "<|im_start|>user\n"
ASSISTANT = "<|im_start|>assistant\n"
END = "<|im_end|>"
OSLO = '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>'
ROMA = '<tool_call>\n{"name": "weather", "arguments": {"city": "Roma"}}\n</tool_call>'
TOOLS_TEXT = (
    '\n<tools>\n{"type": "function", "function": {"name": "weather", "parameters": '
    '{"properties": {"city": {"type": "string"}}}}}\n</tools>'
)

CONVERSATIONS: dict[str, tuple[Row, list[Piece]]] = {
    "one answer": (
        row(turn("user", "Hello"), turn("assistant", "Hi there.")),
        [
            (USER + "Hello" + END + "\n" + ASSISTANT, False),
            ("Hi there." + END, True),
            ("\n", False),
        ],
    ),
    "several answers": (
        row(
            turn("system", "Be brief."),
            turn("user", "One?"),
            turn("assistant", "First."),
            turn("user", "Two?"),
            turn("assistant", "Second, with  spaces and ünïcode 🌍. "),
        ),
        [
            (SYSTEM + "Be brief." + END + "\n" + USER + "One?" + END + "\n" + ASSISTANT, False),
            ("First." + END, True),
            ("\n" + USER + "Two?" + END + "\n" + ASSISTANT, False),
            ("Second, with  spaces and ünïcode 🌍. " + END, True),
            ("\n", False),
        ],
    ),
    "the same text by user and assistant": (
        row(
            turn("user", "Echo."),
            turn("assistant", "Echo."),
            turn("user", "Echo."),
            turn("assistant", "Echo."),
        ),
        [
            (USER + "Echo." + END + "\n" + ASSISTANT, False),
            ("Echo." + END, True),
            ("\n" + USER + "Echo." + END + "\n" + ASSISTANT, False),
            ("Echo." + END, True),
            ("\n", False),
        ],
    ),
    "Hermes calls": (
        row(
            turn("system", "Tools:" + TOOLS_TEXT),
            turn("user", "Oslo?"),
            turn("assistant", OSLO),
            turn("tool", '{"sky": "clear"}'),
            turn("assistant", "Clear."),
        ),
        [
            (
                SYSTEM
                + "Tools:"
                + TOOLS_TEXT
                + END
                + "\n"
                + USER
                + "Oslo?"
                + END
                + "\n"
                + ASSISTANT,
                False,
            ),
            (OSLO + END, True),
            (
                "\n"
                + USER
                + '<tool_response>\n{"sky": "clear"}\n</tool_response>'
                + END
                + "\n"
                + ASSISTANT,
                False,
            ),
            ("Clear." + END, True),
            ("\n", False),
        ],
    ),
    "OpenAI calls, two at once, two answers": (
        row(
            turn("system", "Help."),
            turn("user", "Both?"),
            turn(
                "assistant",
                None,
                tool_calls=[call("weather", city="Oslo"), call("weather", city="Roma")],
            ),
            turn("tool", "clear"),
            turn("tool", "rain"),
            turn("assistant", "Clear, rain."),
            tools=[WEATHER],
        ),
        [
            (
                SYSTEM
                + "Help."
                + TOOLS_TEXT
                + END
                + "\n"
                + USER
                + "Both?"
                + END
                + "\n"
                + ASSISTANT,
                False,
            ),
            (OSLO + "\n" + ROMA + END, True),
            (
                "\n"
                + USER
                + "<tool_response>\nclear\n</tool_response>"
                + END
                + "\n"
                + USER
                + "<tool_response>\nrain\n</tool_response>"
                + END
                + "\n"
                + ASSISTANT,
                False,
            ),
            ("Clear, rain." + END, True),
            ("\n", False),
        ],
    ),
}


def trained(sample: Sample) -> list[str]:
    """Text of each unbroken run of trained tokens."""
    runs: list[list[int]] = []
    for before, label in zip([IGNORED, *sample.labels], sample.labels, strict=False):
        if label != IGNORED:
            if before == IGNORED:
                runs.append([])
            runs[-1].append(int(label))
    decode = tokenizer().decode
    return [decode(run, skip_special_tokens=False) for run in runs]


def chat_with(folder: Path, template: str, **config: Any) -> ChatFormat:
    return ChatFormat.load(model_folder(folder, template, **config))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_every_token_is_trained_or_not_as_cut_by_hand(name: str, chatml: ChatFormat) -> None:
    conversation, pieces = CONVERSATIONS[name]
    rendered = chatml.render(conversation)
    assert rendered.text == "".join(text for text, _ in pieces)
    ids: list[int] = []
    labels: list[int] = []
    for text, is_trained in pieces:  # an oracle that knows no offsets
        piece = tokenizer().encode(text, add_special_tokens=False).ids
        ids += piece
        labels += piece if is_trained else [IGNORED] * len(piece)
    [sample] = chatml.encode([rendered], "assistant")
    assert sample.input_ids.tolist() == ids
    assert sample.labels.tolist() == labels
    assert sample.input_ids.dtype == sample.labels.dtype == np.int32


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_the_same_ids_as_transformers(name: str, chatml: ChatFormat, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model_folder(tmp_path))
    conversation, _ = CONVERSATIONS[name]
    [sample] = chatml.encode([chatml.render(conversation)], "assistant")
    expected = theirs.apply_chat_template(
        list(conversation.messages), tools=conversation.tools, tokenize=True, return_dict=True
    )
    assert sample.input_ids.tolist() == expected["input_ids"]
    prompt = theirs.apply_chat_template(
        list(conversation.messages[:-1]),
        tools=conversation.tools,
        tokenize=False,
        add_generation_prompt=True,
    )
    assert chatml.prompt(conversation.messages[:-1], conversation.tools) == prompt


def test_loss_on_all_trains_every_token(chatml: ChatFormat) -> None:
    conversation, _ = CONVERSATIONS["Hermes calls"]
    [sample] = chatml.encode([chatml.render(conversation)], "all")
    assert sample.labels.tolist() == sample.input_ids.tolist()
    assert sample.supervised == len(sample.input_ids)


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)


@settings(max_examples=150, deadline=None)
@given(
    system=texts, turns=st.lists(st.tuples(texts, texts.filter(str.strip)), min_size=1, max_size=4)
)
def test_what_is_trained_is_what_the_assistant_says(
    system: str, turns: list[tuple[str, str]], chatml: ChatFormat
) -> None:
    messages = [turn("system", system)]
    for question, answer in turns:
        messages += [turn("user", question), turn("assistant", answer)]
    [sample] = chatml.encode([chatml.render(row(*messages))], "assistant")
    # White space at the very start may share its token with the header's line end.
    assert [text.lstrip() for text in trained(sample)] == [
        answer.lstrip() + END for _, answer in turns
    ]


def test_a_saved_tokenizer_cuts_and_fills_nothing(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    saved = tokenizer()
    saved.enable_truncation(max_length=4)
    saved.enable_padding(length=64)
    saved.save(str(folder / "tokenizer.json"))
    chat = ChatFormat.load(folder)
    short, long = (
        row(turn("user", "a"), turn("assistant", "b")),
        CONVERSATIONS["several answers"][0],
    )
    first, second = chat.encode([chat.render(short), chat.render(long)], "assistant")
    assert 4 < len(first.input_ids) < len(second.input_ids)
    assert "<|endoftext|>" not in tokenizer().decode(
        first.input_ids.tolist(), skip_special_tokens=False
    )


def test_a_space_before_the_answer_is_not_trained(tmp_path: Path) -> None:
    """The saved tokenizer gives such a token no width, at the first place of the answer."""
    chat = chat_with(
        tmp_path,
        PLAIN_CHATML.replace("message.role + '\\n'", "message.role + ': '").replace(
            "assistant\\n", "assistant: "
        ),
    )
    # An added token, so that the space is a token of its own.
    answer = "<|endoftext|>Hi."
    [sample] = chat.encode(
        [chat.render(row(turn("user", "Hello"), turn("assistant", answer)))], "assistant"
    )
    assert trained(sample) == [answer + END]


# Templates that would train something else than the row says.

STRIPS_THINKING = PLAIN_CHATML.replace(
    "message.content +",
    "(message.content.split('</think>')[-1] if not loop.last else message.content) +",
)
SHOWS_LAST_TOOL_TURN_ONLY = PLAIN_CHATML.replace(
    "{{- '<|im_start|>' + message.role",
    "{%- if message.role != 'tool' %}{{- '<|im_start|>' + message.role",
).replace("{%- endfor %}", "{%- endif %}{%- endfor %}", 1)
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
HELLO = row(turn("user", "Hello"), turn("assistant", "Hi."))


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


# What a model folder may lack.


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
