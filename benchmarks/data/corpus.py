"""Tool-calling conversations of any size, the same bytes for the same seed, in bounded memory.

    python -m benchmarks.data.corpus rows.jsonl --shape shared --megabytes 100

Each row is a conversation of five turns: system, user, assistant with a call, tool, assistant.

- `distinct`: every row has its own text in every turn, and its own two tools. About 3.4 kB a row.
- `shared`: the usual data of an MCP server. The system turn, with five to ten tools, is one of
  20; the rest is the row's own. About 4.5 kB a row.

In Hermes' dialect the tools stand in the text of the system turn and the call in the assistant's;
in OpenAI's, both stand beside it.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from benchmarks.data.text import Vocabulary, number, prompts
from job.demo.assets import DEFAULT_CACHE, fetch_leaderboard

SHAPES: Final = ("distinct", "shared")
DIALECTS: Final = ("hermes", "openai")
_SERVERS: Final = 20
"""System turns of the shape `shared`."""
_WORDS: Final = {"system": 90, "user": 70, "result": 90, "answer": 80}
_WORDS_SHARED: Final = {"system": 40, "user": 35, "result": 40, "answer": 40}


@dataclass(frozen=True)
class Corpus:
    """What a file of rows is made of."""

    shape: str
    dialect: str
    megabytes: float
    """Of 10^6 bytes."""
    seed: int = 3407

    @property
    def name(self) -> str:
        return f"{self.shape}-{self.dialect}"


@dataclass(frozen=True)
class Server:
    """A system turn and its tools."""

    instruction: str
    tools: list[dict[str, Any]]

    def declared(self) -> str:
        """The system turn with the tools in it."""
        lines = [orjson.dumps(tool).decode() for tool in self.tools]
        return "\n".join([self.instruction, "<tools>", *lines, "</tools>"])


def write(corpus: Corpus, words: Vocabulary, out: Path) -> int:
    """Write rows until there are `corpus.megabytes`; their number."""
    size = rows = 0
    with out.open("wb") as file:
        for row in _rows(corpus, words):
            line = orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
            file.write(line)
            rows, size = rows + 1, size + len(line)
            if size >= corpus.megabytes * 1e6:
                return rows
    raise AssertionError("rows never end")


def vocabulary() -> Vocabulary:
    """Raises as `job.demo.assets.fetch`."""
    return Vocabulary.of(prompts(fetch_leaderboard(DEFAULT_CACHE)))


def _rows(corpus: Corpus, words: Vocabulary) -> Iterator[dict[str, Any]]:
    chosen = random.Random(corpus.seed)  # noqa: S311, for variety, not for secrets
    writer = _Writer(chosen, words)
    as_row = _DIALECTS[corpus.dialect]
    tools = [5 + n % 6 for n in range(_SERVERS)]
    shared = [writer.server(_WORDS_SHARED["system"], count) for count in tools]
    numbered = 0
    while True:
        if corpus.shape == "shared":
            server, lengths = chosen.choice(shared), _WORDS_SHARED
        else:
            server, lengths = writer.server(_WORDS["system"], 2), _WORDS
        yield as_row(f"row-{numbered}", server, writer.talk(server, lengths))
        numbered += 1


@dataclass(frozen=True)
class Talk:
    """What comes after the system turn."""

    question: str
    tool: str
    arguments: dict[str, Any]
    result: str
    answer: str


class _Writer:
    def __init__(self, chosen: random.Random, words: Vocabulary) -> None:
        self._chosen = chosen
        self._words = words

    def server(self, words: int, tools: int) -> Server:
        return Server(self._text(words), [self._tool(number) for number in range(tools)])

    def talk(self, server: Server, lengths: dict[str, int]) -> Talk:
        function = self._chosen.choice(server.tools)["function"]
        result = {
            "id": self._chosen.getrandbits(40),
            "status": self._chosen.choice(("ok", "partial", "cached")),
            "summary": self._text(lengths["result"]),
            "values": [round(self._chosen.uniform(-90, 900), 3) for _ in range(6)],
        }
        return Talk(
            question=self._text(lengths["user"]),
            tool=function["name"],
            arguments=self._arguments(function["parameters"]),
            result=orjson.dumps(result).decode(),
            answer=self._text(lengths["answer"]),
        )

    def _text(self, words: int) -> str:
        """Of about so many words."""
        return self._words.text(self._chosen, self._chosen.randint(words * 3 // 4, words * 5 // 4))

    def _tool(self, number: int) -> dict[str, Any]:
        names = self._chosen.sample(self._words.plain, 5)
        properties = {name: self._parameter() for name in names[2:]}
        return {
            "type": "function",
            "function": {
                "name": f"{names[0]}_{names[1]}_{number}",
                "description": self._text(8),
                "parameters": {
                    "type": "object",
                    "properties": properties,
                    "required": list(properties)[:2],
                },
            },
        }

    def _parameter(self) -> dict[str, Any]:
        kind = self._chosen.choice(("string", "integer", "number", "boolean", "enum"))
        said = self._text(4)
        if kind == "enum":
            options = self._chosen.sample(self._words.plain, 3)
            return {"type": "string", "description": said, "enum": options}
        return {"type": kind, "description": said}

    def _arguments(self, parameters: dict[str, Any]) -> dict[str, Any]:
        given = list(parameters["properties"].items())[: self._chosen.randint(2, 3)]
        return {name: self._argument(spec) for name, spec in given}

    def _argument(self, spec: dict[str, Any]) -> Any:
        if "enum" in spec:
            return self._chosen.choice(spec["enum"])
        return _ARGUMENTS[spec["type"]](self._chosen, self._words)


_ARGUMENTS: Final[dict[str, Callable[[random.Random, Vocabulary], Any]]] = {
    "string": lambda chosen, words: words.text(chosen, 3),
    "integer": lambda chosen, _: int(number(chosen)),
    "number": lambda chosen, _: round(chosen.uniform(-90, 900), 3),
    "boolean": lambda chosen, _: chosen.random() < 0.5,
}


def _hermes(row_id: str, server: Server, talk: Talk) -> dict[str, Any]:
    call = orjson.dumps({"name": talk.tool, "arguments": talk.arguments}).decode()
    return {
        "id": row_id,
        "source": "generated",
        "scenario": "single_call",
        "tool_name": talk.tool,
        "messages": [
            {"role": "system", "content": server.declared()},
            {"role": "user", "content": talk.question},
            {"role": "assistant", "content": f"<tool_call>\n{call}\n</tool_call>"},
            # Without tags: the template adds them, and only the job knows whether they are there.
            {"role": "tool", "content": talk.result},
            {"role": "assistant", "content": talk.answer},
        ],
    }


def _openai(row_id: str, server: Server, talk: Talk) -> dict[str, Any]:
    call_id = f"call_{row_id}"
    function = {"name": talk.tool, "arguments": orjson.dumps(talk.arguments).decode()}
    called = [{"id": call_id, "type": "function", "function": function}]
    return {
        "id": row_id,
        "tools": server.tools,
        "messages": [
            {"role": "system", "content": server.instruction},
            {"role": "user", "content": talk.question},
            {"role": "assistant", "content": None, "tool_calls": called},
            {"role": "tool", "tool_call_id": call_id, "content": talk.result},
            {"role": "assistant", "content": talk.answer},
        ],
    }


_DIALECTS: Final = {"hermes": _hermes, "openai": _openai}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the JSON lines to write")
    parser.add_argument("--shape", choices=SHAPES, default=SHAPES[0])
    parser.add_argument("--dialect", choices=DIALECTS, default=DIALECTS[0])
    parser.add_argument("--megabytes", type=float, default=1000)
    parser.add_argument("--seed", type=int, default=3407)
    given = parser.parse_args(argv)
    corpus = Corpus(given.shape, given.dialect, given.megabytes, given.seed)
    print(f"{write(corpus, vocabulary(), given.out)} rows written to {given.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
