"""Exactly the assistant's turns are trained: proven token by token against text cut by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken

from job.dataset import ChatFormat
from job.dataset.tokens.samples import IGNORED
from tests.dataset.masked import CONVERSATIONS, END, trained
from tests.dataset.standin import PLAIN_CHATML, model_folder, row, tokenizer, turn


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


@settings(max_examples=150)
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
    template = PLAIN_CHATML.replace("message.role + '\\n'", "message.role + ': '")
    folder = model_folder(tmp_path, template.replace("assistant\\n", "assistant: "))
    saved = tokenizer()
    # An added token, so that the space is a token of its own.
    saved.add_tokens([AddedToken("<note>", normalized=False, special=False)])
    saved.save(str(folder / "tokenizer.json"))
    chat = ChatFormat.load(folder)
    answer = "<note>Hi."
    [sample] = chat.encode(
        [chat.render(row(turn("user", "Hello"), turn("assistant", answer)))], "assistant"
    )
    run = sample.labels[sample.labels != IGNORED].tolist()
    assert saved.decode(run, skip_special_tokens=False) == answer + END
