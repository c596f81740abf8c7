"""Answers from a server that speaks OpenAI's chat completions (vLLM and its like), greedily.

Tools travel as the request's `tools`, so that the server's own template renders them: Hermes rows,
which declare them in the text of their system turn, have the `<tools>` blocks moved from there, and
`<tool_response>` tags taken from their tool turns.
Calls come back as `tool_calls`, or as `<tool_call>` in the text where the server has no parser.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from job.dataset import Message
from job.dataset.rows.hermes import declared_tools
from job.dataset.tokens.results import bare_results
from job.errors import AccessDenied, JobError, Problem, SettingsError, Unavailable
from job.evaluation.document import Answer, Turn
from job.redact import redact

_TRIES: Final = 6
_TOOLS: Final = re.compile(r"<tools>.*?</tools>", re.DOTALL)
_BUSY: Final = (408, 425, 429)


class Endpoint:
    """A server, for one of its models or more. Thread-safe.

    `pause` waits between two tries, and raises where somebody asks to stop.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None,
        pause: Callable[[float], None],
        *,
        max_new_tokens: int,
        timeout_seconds: float = 120.0,
    ) -> None:
        base = url.rstrip("/")
        self._url = (base if base.endswith("/v1") else f"{base}/v1") + "/chat/completions"
        self._secret = api_key
        self._pause = pause
        self._max_new_tokens = max_new_tokens
        self.timeout_seconds = timeout_seconds
        """That one try may wait for the server's next word."""
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        try:
            self._client = httpx.Client(headers=headers, timeout=timeout_seconds)
            httpx.URL(self._url)
        except (ValueError, httpx.InvalidURL) as error:
            found = "the URL or the key can't be sent"
            raise SettingsError(Problem("--endpoint", found)) from error

    def close(self) -> None:
        self._client.close()

    def answer(self, model: str, turn: Turn) -> Answer:
        """Raises `Unavailable` after several tries, `AccessDenied`, and `SettingsError` for a
        request that the server refuses."""
        messages, tools = request_of(turn)
        body: dict[str, Any] = {
            "model": model,
            "messages": messages,
            "temperature": 0,
            "max_tokens": self._max_new_tokens,
        }
        if tools:
            body["tools"] = tools
        tries = Retrying(
            retry=retry_if_exception_type(Unavailable),
            stop=stop_after_attempt(_TRIES),
            wait=_wait,
            sleep=self._pause,
            reraise=True,
        )
        return tries(self._once, body)

    def _once(self, body: dict[str, Any]) -> Answer:
        try:
            response = self._client.post(self._url, json=body)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
            raise SettingsError(Problem("--endpoint", self._clean(str(error)))) from error
        except httpx.HTTPError as error:
            raise _Busy(self._problem(f"{type(error).__name__}: {error}")) from error
        if response.status_code != httpx.codes.OK:
            raise self._refusal(response)
        try:
            return _answer_of(response.json()["choices"][0])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            found = "the answer is not a chat completion"
            raise _Busy(self._problem(found)) from error

    def _refusal(self, response: httpx.Response) -> JobError:
        code = response.status_code
        problem = self._problem(f"HTTP {code}: {response.text[:300]}")
        if code in (401, 403):
            return AccessDenied(problem)
        if code in _BUSY or code >= 500:
            return _Busy(problem, _retry_after(response))
        return SettingsError(problem)

    def _problem(self, found: str) -> Problem:
        return Problem(self._clean(self._url), self._clean(found))

    def _clean(self, text: str) -> str:
        return redact(text.replace(self._secret, "***") if self._secret else text)


class _Busy(Unavailable):
    """Worth another try."""

    def __init__(self, problem: Problem, after: float = 0.0) -> None:
        super().__init__(problem)
        self.after = after


_BACKOFF: Final = wait_random_exponential(multiplier=0.5, max=20)


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(_BACKOFF(state), error.after if isinstance(error, _Busy) else 0.0)


def _retry_after(response: httpx.Response) -> float:
    try:
        return min(60.0, max(0.0, float(response.headers.get("Retry-After", "0"))))
    except ValueError:  # a date
        return 0.0


def request_of(turn: Turn) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The messages before a turn and the tools, as chat completions take them."""
    tools, messages = list(turn.row.tools or ()), bare_results(turn.before)
    if messages and messages[0]["role"] == "system":
        text = messages[0].get("content") or ""
        found = [] if tools else declared_tools(text)
        if found:
            tools = [t if "function" in t else {"type": "function", "function": t} for t in found]
            left = _TOOLS.sub("", text).strip()
            messages[:1] = [{**messages[0], "content": left}] if left else []
    return [_message(message) for message in _with_ids(messages)], tools


def _with_ids(messages: Iterable[Message]) -> Iterator[Message]:
    """Chat completions want an id of every call and answer. Rows that have none get some of nine
    letters and digits, as Mistral's templates ask for; others show none."""
    open_ids: list[str] = []
    for number, message in enumerate(messages):
        if calls := message.get("tool_calls"):
            named = [{"id": f"call{number:03d}{n:02d}", **call} for n, call in enumerate(calls)]
            open_ids = [call["id"] for call in named]
            yield {**message, "tool_calls": named}
        elif message["role"] == "tool" and open_ids:
            yield {"tool_call_id": open_ids.pop(0), **message}
        else:
            yield message


def _message(message: Message) -> dict[str, Any]:
    calls = message.get("tool_calls")
    if not calls:
        return dict(message)
    return {
        **message,
        "tool_calls": [
            {
                **call,
                "function": {
                    **call["function"],
                    "arguments": json.dumps(call["function"]["arguments"]),
                },
            }
            for call in calls
        ],
    }


def _answer_of(choice: dict[str, Any]) -> Answer:
    message = choice["message"]
    text = str(message.get("content") or "")
    if "</think>" in text and "<think>" not in text.split("</think>", 1)[0]:
        text = "<think>" + text
    blocks = [_block(call["function"]) for call in message.get("tool_calls") or ()]
    return Answer("\n".join([text] * bool(text) + blocks), choice.get("finish_reason") == "length")


def _block(function: dict[str, Any]) -> str:
    """As Hermes writes it; arguments that are no JSON stay as they came, and are malformed. An
    empty string is what OpenAI's API gives for a call without arguments, as in the rows."""
    arguments = function.get("arguments")
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    written = written if written.strip() else "{}"
    call = f'{{"name": {json.dumps(function["name"])}, "arguments": {written}}}'
    return f"<tool_call>\n{call}\n</tool_call>"
