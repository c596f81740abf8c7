"""Which tokens are shown as trained, what the page says of the rest, and what it hides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers

from job.dataset.review.preview import PreviewConversation, PreviewToken, mask_preview, pieces
from job.redact import Redactor
from tests.dataset.standin import tokenizer

BPE = tokenizer()
SUMMARY: dict[str, Any] = {
    "rows": 12_000,
    "counts": {"train": 9_400, "evaluation": 512, "held_out_unused": 2_000, "invalid": 88},
    "tokens": 2_345_678,
    "supervised_tokens": 345_678,
    "supervised_ratio": 345_678 / 2_345_678,
    "max_seq_length": 2048,
    "lengths": {"min": 40, "mean": 249.3, "p50": 231, "p95": 812, "max": 2031},
    "trimmed": 3,
    "trimmed_examples": [{"uri": "a.jsonl", "line": 7, "detail": "2 turns cut"}],
    "warnings": {"looks like a key": {"count": 4, "examples": []}},
}


def decode(ids: Sequence[int]) -> str:
    return BPE.decode(list(ids), skip_special_tokens=False)


def pieces_of(*parts: tuple[str, bool]) -> tuple[PreviewToken, ...]:
    """As the trainer would have them: each part encoded alone, trained or not."""
    encoded = [(BPE.encode(text, add_special_tokens=False).ids, on) for text, on in parts]
    ids = [token for tokens, _ in encoded for token in tokens]
    labels = [token if on else -100 for tokens, on in encoded for token in tokens]
    return pieces(decode, ids, labels)


def conversation(*parts: tuple[str, bool], **changes: Any) -> PreviewConversation:
    made = pieces_of(*parts)
    values: dict[str, Any] = {
        "where": "data.jsonl:1",
        "side": "train",
        "tokens": len(made),
        "supervised": sum(piece.trained for piece in made),
        "pieces": made,
        "meta": {"id": "row-1"},
    }
    return PreviewConversation(**(values | changes))


def text_of(page: bytes) -> str:
    """Without tags, white space collapsed."""
    body = page.decode().partition("<body>")[2]
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def joined(tokens: Sequence[PreviewToken]) -> str:
    return "".join(token.text for token in tokens)


def test_each_token_has_its_text_and_state() -> None:
    found = pieces_of(("<|im_start|>user\n", False), ("sunny", True), ("<|im_end|>", True))
    assert found[0] == PreviewToken("<|im_start|>", False)
    assert found[-1] == PreviewToken("<|im_end|>", True)
    assert joined([piece for piece in found if piece.trained]) == "sunny<|im_end|>"


def test_tokens_that_share_a_character_are_one_piece() -> None:
    assert pieces_of(("a", False), ("🌦", True), ("b", False)) == (
        PreviewToken("a", False),
        PreviewToken("🌦", True),
        PreviewToken("b", False),
    )


def test_a_replacement_character_of_the_data_is_an_ordinary_character() -> None:
    assert [piece.text for piece in pieces_of(("��a�", True))] == ["�", "�", "a", "�"]


def test_a_character_that_is_trained_in_part_is_split() -> None:
    ids = BPE.encode("é!", add_special_tokens=False).ids
    assert pieces(decode, ids, [-100, ids[1], -100]) == (
        PreviewToken("�", False),
        PreviewToken("�", True),
        PreviewToken("!", False),
    )


@given(st.text(st.characters(codec="utf-8")), st.booleans())
def test_the_pieces_are_the_text(text: str, trained: bool) -> None:
    found = pieces_of(("<|im_start|>", trained), (text, trained), ("<|im_end|>", trained))
    assert joined(found) == f"<|im_start|>{text}<|im_end|>"
    assert {piece.trained for piece in found} == {trained}


@given(st.lists(st.tuples(st.text(st.characters(codec="utf-8")), st.booleans())))
def test_the_trained_pieces_are_the_trained_text(parts: list[tuple[str, bool]]) -> None:
    found = pieces_of(*parts, ("<|im_end|>", False))
    assert joined([piece for piece in found if piece.trained]) == "".join(
        text for text, on in parts if on
    )


def test_a_tokenizer_of_the_sentencepiece_kind_keeps_its_spaces() -> None:
    """Its decoder drops the first space of a text and puts a � for each byte of a part."""
    bytes_ = [f"<0x{code:02X}>" for code in range(256)]
    vocabulary = {t: i for i, t in enumerate(["<unk>", "<s>", *bytes_, "▁", "h", "i", "▁h", "▁hi"])}
    merges = [("▁", "h"), ("▁h", "i")]
    model = models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    llama = Tokenizer(model)
    llama.add_special_tokens([AddedToken("<s>", special=True)])
    llama.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    llama.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    ids = llama.encode("hi hi 日本", add_special_tokens=False).ids
    found = pieces(lambda i: llama.decode(list(i), skip_special_tokens=False), ids, ids)
    assert [piece.text for piece in found] == ["hi", " hi", " ", "日", "本"]


def test_the_page_has_the_totals() -> None:
    text = text_of(mask_preview([], SUMMARY, title="Mask preview of run-1"))
    assert "Mask preview of run-1" in text
    assert "rows 12,000 train 9,400 evaluation 512 left out 2,088 2,000 held out unused, 88" in text
    assert "tokens 2,345,678 in the training rows trained tokens 345,678 14.7% of these" in text
    assert "longest limit 40 249.3 231 812 2,031 2,048" in text
    assert "3 cut at a turn to fit a.jsonl:7: 2 turns cut" in text
    assert "4 looks like a key" in text
    assert "0 sample conversations None." in text


@pytest.mark.parametrize(
    "summary",
    [{}, dict.fromkeys(SUMMARY), {"counts": {}}, {"lengths": {"p99": 7}, "tokens": 0}],
)
def test_what_is_not_known_is_left_out(summary: dict[str, Any]) -> None:
    text = text_of(mask_preview([conversation(("Hi.", True))], summary, title="t"))
    assert "None" not in text
    assert "1 sample conversation" in text


def test_a_conversation_has_a_header() -> None:
    each = conversation(("Hello", False), ("Hi.", True), where="data/b.jsonl:17", tokens=1234)
    text = text_of(mask_preview([each], {}, title="t"))
    assert "data/b.jsonl:17 train 1,234 tokens, 3 of them trained (0.2%)" in text
    assert "id row-1" in text
    assert "Nothing of it is trained." not in text


def test_a_conversation_with_nothing_to_learn_is_called_out() -> None:
    for each in (conversation(("Hello", False)), conversation()):
        assert "Nothing of it is trained." in text_of(mask_preview([each], {}, title="t"))


def test_runs_are_marked_and_every_second_token_shaded() -> None:
    each = conversation(("ab", False), ("xyz", True))
    page = mask_preview([each], {}, title="t").decode()
    assert '<pre class="text">a<i>b</i><mark>x<i>y</i>z</mark></pre>' in page
    assert '<svg viewBox="0 0 5 1"' in page
    assert '<rect x="2" width="3" height="1"/></svg>' in page


def test_what_is_cut_from_a_long_conversation_is_said() -> None:
    shown = tuple(PreviewToken(f"{n} ", n >= 3000) for n in range(5000))
    text = text_of(mask_preview([conversation(pieces=shown)], {}, title="t"))
    assert "904 tokens in the middle, 0 of them trained, are not shown on this page." in text
    assert " 2047 904 tokens" in text
    assert "on this page. 2952 " in text
    text = text_of(mask_preview([conversation(pieces=shown[:4096])], {}, title="t"))
    assert "not shown" not in text


def test_what_is_cut_from_a_long_list_is_said() -> None:
    page = mask_preview([conversation(("Hi.", True))] * 53, {}, title="t")
    assert page.count(b'<details class="conversation"') == 50
    assert "3 more were sampled and are not shown on this page." in text_of(page)


def test_long_and_many_values_beside_the_messages() -> None:
    meta = {"long": "x" * 1000, "nested": {"a": [1, None]}} | {f"k{n}": n for n in range(30)}
    text = text_of(mask_preview([conversation(("Hi.", True), meta=meta)], {}, title="t"))
    assert "x" * 300 + " … (1,000 characters)" in text
    assert "nested {&#34;a&#34;: [1, null]}" in text
    assert "k17 17 … 12 more" in text


def test_secrets_are_masked_wherever_they_are() -> None:
    secret = "made-up-password"
    mask = Redactor({"MY_PASSWORD": secret}).text
    half = len(secret) // 2
    each = conversation(
        (f"It is {secret[:half]}", False),
        (f"{secret[half:]}, and that is all.", True),
        where=f"s3://bucket/{secret}.jsonl:1",
        meta={secret: {"deep": [secret]}, "long": "x " * 145 + secret},
    )
    summary = {"warnings": {secret: {"count": 1, "examples": []}}}
    page = mask_preview([each], summary, title=secret, mask=mask).decode()
    assert len(each.pieces) > len(secret), "the secret is spread over many tokens"
    bare = re.sub(r"<[^>]*>", "", page)
    assert secret not in bare
    assert "made-up" not in bare
    assert "It is ••••••••••••••••, and that is all." in bare


def test_the_same_input_gives_the_same_bytes() -> None:
    pages = {mask_preview([conversation(("Hi.", True))], SUMMARY, title="t") for _ in range(2)}
    assert len(pages) == 1
