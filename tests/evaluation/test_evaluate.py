"""The evaluation of a real, tiny model: bounded, resumed, and leaving the model as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch

from job.dataset import Row
from job.errors import OutOfGpuMemory, Preempted
from job.evaluation import answers as answers_module
from job.evaluation import evaluate as evaluate_module
from job.evaluation import generate as generate_module
from job.evaluation.document import Answer
from job.evaluation.evaluate import Bounds, evaluate
from job.evaluation.generate import batches, generate, generating
from job.evaluation.reading import Reading, read_turns
from job.lifecycle import StopToken
from tests.dataset.standin_families import chat_of
from tests.evaluation.conftest import Loaded
from tests.evaluation.test_reading import LLAMA, ROWS, UNKNOWN

NOT_ASKED: Any = None
"""The score of an answer that holds no secret, where answers are kept."""


class Kept:
    """A keeper in memory."""

    def __init__(self) -> None:
        self.content: bytes | None = None

    def read(self) -> bytes | None:
        return self.content

    def write(self, content: bytes) -> None:
        self.content = content


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate_module, "_PADDED_TOKENS_PER_BATCH", 1200)
    monkeypatch.setattr(Reading, "max_new_tokens", 6)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that were generated."""
    made: list[int] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        made.append(len(args[2]))
        return generate(*args, **kwargs)

    monkeypatch.setattr(evaluate_module, "generate", counted)
    return made


def judge(loaded: Loaded, rows: list[Row], stop: StopToken | None = None, **more: Any) -> Any:
    found = evaluate(
        loaded.model,
        loaded.tokenizer,
        loaded.chat,
        read_turns(loaded.chat, rows),
        stop or StopToken(),
        **more,
    )
    assert found is not None
    return found


def timeless(found: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name != "seconds"}


def stops_in_batch(number: int, calls: list[int]) -> tuple[StopToken, Callable[[], None]]:
    stop = StopToken()

    def alive() -> None:
        if len(calls) == number:
            stop.request(Preempted("SIGTERM"))

    return stop, alive


def test_the_document(loaded: Loaded, held_out: list[Row]) -> None:
    found = judge(loaded, held_out, bounds=Bounds(text_match="exact"))
    assert (found["rows"], found["turns"], found["stopped_by"]) == (12, 12, None)
    assert found["seconds"] > 0
    assert found["tools"] == {"get_weather": {"of": 12, "base": 0, "adapter": 0}}
    assert {name: row["of"] for name, row in found["scenarios"].items()} == {
        "kind 0": 6,
        "kind 1": 6,
    }
    assert found["gain"]["exact"]["rate"] == 0
    [example, *_] = found["examples"]
    assert (example["tool"], example["right"]) == ("get_weather", False)
    assert example["scenario"].startswith("kind ")
    assert any(example["cut_off"] for example in found["examples"])
    assert any(example["base"] != example["adapter"] for example in found["examples"])
    json.dumps(found, allow_nan=False)


def no_room_for_more_than(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def on_a_small_card(*args: Any, **kwargs: Any) -> Any:
        if len(args[2]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(*args, **kwargs)

    monkeypatch.setattr(evaluate_module, "generate", on_a_small_card)


def test_a_batch_that_the_card_has_no_memory_for_is_asked_in_halves(
    loaded: Loaded, held_out: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = judge(loaded, held_out)
    no_room_for_more_than(1, monkeypatch)
    assert timeless(judge(loaded, held_out)) == timeless(whole)


def test_one_prompt_that_the_card_has_no_memory_for(
    loaded: Loaded, held_out: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    no_room_for_more_than(0, monkeypatch)
    with pytest.raises(OutOfGpuMemory, match=r"a held-out prompt of \d+ tokens"):
        judge(loaded, held_out)


def test_two_evaluations_agree(loaded: Loaded, held_out: list[Row]) -> None:
    assert timeless(judge(loaded, held_out)) == timeless(judge(loaded, held_out))


@pytest.mark.parametrize("batch", [2, 3, 6])
def test_a_resumed_evaluation_generates_only_the_rest(
    loaded: Loaded, held_out: list[Row], calls: list[int], batch: int
) -> None:
    whole = judge(loaded, held_out)
    all_batches, kept = calls.copy(), Kept()
    assert len(all_batches) > 6
    calls.clear()
    stop, alive = stops_in_batch(batch, calls)
    with pytest.raises(Preempted):
        judge(loaded, held_out, stop, alive=alive, keeper=kept)
    calls.clear()
    assert timeless(judge(loaded, held_out, keeper=kept)) == timeless(whole)
    finished = (batch - 1) // 2 * 2  # the base's and the adapter's
    assert calls == all_batches[finished:]


def test_answers_of_other_weights_are_not_taken(
    loaded: Loaded, held_out: list[Row], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate_module, "SAVE_SECONDS", 0.0)
    kept = Kept()
    judge(loaded, held_out, keeper=kept)
    made = calls.copy()
    calls.clear()
    judge(loaded, held_out, keeper=kept)
    assert calls == []
    judge(loaded, held_out, keeper=kept, made_with="another base")
    assert calls == made
    calls.clear()
    with torch.no_grad():
        next(p for p in loaded.model.parameters() if p.requires_grad).add_(1e-3)
    judge(loaded, held_out, keeper=kept, made_with="another base")
    assert calls == made


@pytest.mark.parametrize("content", [b"{", b"[]\n", b'{"key": 1}', b"\xff", b'"x"\n\n', b"\n"])
def test_what_is_kept_and_is_damaged_is_nothing(content: bytes) -> None:
    kept = Kept()
    kept.content = content
    resumed = answers_module.Answers.resumed("key", kept, lambda _number, _answer: NOT_ASKED)
    assert resumed.adapter == {}


@pytest.mark.parametrize("seconds", [1e-9, 0.04])
def test_time_that_is_over_leaves_the_same_turns_of_both(
    loaded: Loaded, held_out: list[Row], seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(10**6))
    spent = property(lambda _answers: next(ticks) / 1000)
    monkeypatch.setattr(answers_module.Answers, "seconds", spent)
    found = judge(loaded, held_out, bounds=Bounds(seconds=seconds))
    assert found["stopped_by"] == "seconds"
    assert found["rows"] < found["turns"] == 12
    assert (found["rows"] > 0) == (seconds > 0.01)
    assert {name: m["of"] for name, m in found["base"].items()} == {
        name: m["of"] for name, m in found["adapter"].items()
    }


def test_the_order_of_the_batches_is_not_that_of_length() -> None:
    made = batches(list(range(50, 450, 4)), 10)
    assert made == batches(list(range(50, 450, 4)), 10)
    assert sorted(i for batch in made for i in batch) == list(range(100))
    assert made != sorted(made, reverse=True)
    assert made != sorted(made)


def test_the_model_is_left_as_it_was(loaded: Loaded, held_out: list[Row]) -> None:
    base = loaded.model.get_base_model()
    base.generation_config.repetition_penalty = 1.3
    loaded.model.config.use_cache = False
    loaded.model.train()
    before = [loaded.model.generation_config.to_dict(), base.generation_config.to_dict()]
    judge(loaded, held_out)
    assert loaded.model.training
    assert loaded.model.config.use_cache is False
    assert [loaded.model.generation_config.to_dict(), base.generation_config.to_dict()] == before


def test_generation_settings_of_the_model_do_not_leak_in(loaded: Loaded) -> None:
    """But for the tokens that end an answer: all of them count."""

    def answer() -> str:
        with generating(loaded.model, loaded.tokenizer):
            made = generate(loaded.model, loaded.tokenizer, [[5, 6, 7]], max_new_tokens=8)
        assert made is not None
        return made[0].text

    plain = answer()
    first = loaded.tokenizer(plain, add_special_tokens=False)["input_ids"][0]
    for config in (loaded.model.generation_config, loaded.model.get_base_model().generation_config):
        config.repetition_penalty = 9.0
        config.suppress_tokens = [first]
        config.forced_bos_token_id = 9
    assert answer() == plain
    own = loaded.tokenizer.eos_token_id
    for config in (loaded.model.generation_config, loaded.model.get_base_model().generation_config):
        config.eos_token_id = [own, first]
    with generating(loaded.model, loaded.tokenizer):
        [ended] = generate(loaded.model, loaded.tokenizer, [[5, 6, 7]], max_new_tokens=8) or []
    assert (len(ended.text) < len(plain), ended.cut_off) == (True, False)


def test_an_answer_ends_where_the_model_has_no_more_positions(loaded: Loaded) -> None:
    """Unsloth raises where a prompt and its answer could be longer, after all of the training."""
    positions = loaded.model.config.max_position_embeddings
    with generating(loaded.model, loaded.tokenizer):

        def made(length: int) -> list[Answer]:
            prompts = [[5] * length, [5, 6, 7]]
            return generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=8) or []

        near, full = made(positions - 2), made(positions)
    assert [answer.cut_off for answer in near] == [True, True]
    assert len(loaded.tokenizer(near[0].text, add_special_tokens=False)["input_ids"]) <= 2
    assert full == [Answer("", cut_off=True)] * 2


def test_calls_of_an_unknown_form_are_not_generated_and_get_no_figures(
    loaded: Loaded, calls: list[int]
) -> None:
    unknown = Loaded(loaded.model, loaded.tokenizer, chat_of(LLAMA, UNKNOWN))
    found = judge(unknown, ROWS, bounds=Bounds(text_match="exact"))
    assert (calls, found["rows"], found["turns"], found["stopped_by"]) == ([], 0, 3, None)
    assert (found["base"], found["adapter"], found["gain"], found["examples"]) == ({}, {}, {}, [])
    assert found["not_judged"]["turns"] == 3
