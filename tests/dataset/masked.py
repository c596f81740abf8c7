"""Conversations with what is trained of them, cut by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from job.dataset import ChatFormat, Row
from job.dataset.tokens.samples import IGNORED, Sample
from tests.dataset.standin import WEATHER, call, model_folder, row, tokenizer, turn

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
HELLO = row(turn("user", "Hello"), turn("assistant", "Hi."))


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
