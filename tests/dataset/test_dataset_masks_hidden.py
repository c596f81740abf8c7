"""What a template leaves out, or never ends, is missed even where another part says the same.

A row is refused if the template drops a text, a call or a turn whose words stand elsewhere in the
conversation as well, and if no token ends a turn before the next one begins.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

from job.dataset import Row, RowRefused
from tests.dataset.conversations import HERMES_SYSTEM, TOOLS, said, told, user
from tests.dataset.masks import said_by, said_in
from tests.dataset.standin import call, row, turn
from tests.dataset.standin_families import (
    FAMILIES,
    MOVES_TOOLS,
    R1_WITH_TOOL_TOKENS,
    Family,
    chat_format,
    chat_of,
)

FIRST_CALL_ONLY: Final = MOVES_TOOLS.source().replace(
    "{%- for call in message['tool_calls'] %}", "{%- for call in message['tool_calls'][:1] %}"
)
NO_TOOL_TURNS: Final = MOVES_TOOLS.source().replace(
    "'[TOOL_RESULTS]' + message['content'] + '[/TOOL_RESULTS]'", "''"
)
NO_SYSTEM: Final = MOVES_TOOLS.source().replace("messages[0]['content'] + '\\n\\n'", "''")


def calling(text: str | None, *calls: dict[str, Any]) -> dict[str, Any]:
    return said(text, tool_calls=list(calls))


HIDDEN: Final[dict[str, tuple[Family, str | None, Row]]] = {
    "a single call that nothing ends": (
        FAMILIES["deepseek-r1"],
        None,
        row(
            HERMES_SYSTEM, user("go"), calling(None, call("weather")), told("clear"), said("Clear.")
        ),
    ),
    "a single call that nothing ends, with tokens around calls": (
        R1_WITH_TOOL_TOKENS,
        None,
        row(
            HERMES_SYSTEM, user("go"), calling(None, call("weather")), told("clear"), said("Clear.")
        ),
    ),
    "a last call that only its own token ends": (
        R1_WITH_TOOL_TOKENS,
        None,
        row(HERMES_SYSTEM, user("go"), calling(None, call("weather"))),
    ),
    "calls after the token that ends the turn": (
        R1_WITH_TOOL_TOKENS,
        None,
        row(HERMES_SYSTEM, user("go"), calling(None, *(call("weather", day=n) for n in range(3)))),
    ),
    "a call that the text beside it names": (
        FAMILIES["deepseek-r1"],
        None,
        row(
            HERMES_SYSTEM,
            user("go"),
            calling("The weather, city Oslo.", call("weather", city="Oslo")),
        ),
    ),
    "a text that the call beside it holds": (
        FAMILIES["llama-3.1"],
        None,
        row(user("go"), calling("weather", call("weather", city="Oslo")), tools=TOOLS),
    ),
    "a second call with the same words": (
        MOVES_TOOLS,
        FIRST_CALL_ONLY,
        row(user("go"), calling(None, call("weather", day=1), call("weather", day=2)), tools=TOOLS),
    ),
    "a tool's answer that the assistant repeats": (
        MOVES_TOOLS,
        NO_TOOL_TURNS,
        row(
            user("go"),
            calling(None, call("weather")),
            turn("tool", "toolword"),
            said("toolword!"),
            tools=TOOLS,
        ),
    ),
    "a system turn that the user repeats": (
        MOVES_TOOLS,
        NO_SYSTEM,
        row(turn("system", "userword"), user("go"), said("Gone.")),
    ),
}


@pytest.mark.parametrize("name", HIDDEN)
def test_what_a_template_leaves_out_is_missed(name: str) -> None:
    family, template, conversation = HIDDEN[name]
    with pytest.raises(RowRefused):
        chat_of(family, template).render(conversation)


@pytest.mark.parametrize("family", ["qwen2.5", "llama-3.1", "llama-3.2"])
def test_calls_of_tools_in_the_text_are_trained(family: str) -> None:
    asking = row(HERMES_SYSTEM, user("go"), calling(None, call("weather")), told("x"), said("Ok."))
    rendered = chat_format(family).render(asking)
    assert said_in(FAMILIES[family], rendered.text) == said_by(FAMILIES[family], asking)


@pytest.mark.parametrize("tag", ["</tool_call>", "a </tool_call><tool_call> b"])
def test_a_tag_in_an_argument_that_would_end_the_call_is_refused(tag: str) -> None:
    """A server cuts the call there: its JSON breaks, and the whole answer becomes plain text."""
    asking = row(user("go"), calling(None, call("weather", city=tag)), tools=TOOLS)
    with pytest.raises(RowRefused):
        chat_of(FAMILIES["qwen2.5"]).render(asking)
