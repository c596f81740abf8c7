"""Encoding piece by piece gives the ids and labels of encoding the whole."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors

from job.dataset import Rendered
from job.dataset.tokens import pieces as encoding
from job.dataset.tokens.encode import Encoder
from job.dataset.tokens.samples import IGNORED, Encoded, Sample
from tests.dataset import standin
from tests.dataset.standin_families import FAMILIES, family_folder


def plain_way(tokenizer: Tokenizer, rendered: Rendered) -> Sample:
    """What the tokenizer itself says of the whole text, with its own offsets."""
    whole = tokenizer.encode(rendered.text, add_special_tokens=False)
    labels = [
        token
        if any(first <= start and end <= last and start < last for first, last in rendered.spans)
        else IGNORED
        for token, (start, end) in zip(whole.ids, whole.offsets, strict=True)
    ]
    return Encoded.of([_sample(whole.ids, labels)])[0]


def _sample(ids: list[int], labels: list[int]) -> Sample:
    import numpy as np

    return Sample(np.array(ids, dtype=np.int32), np.array(labels, dtype=np.int32))


def tokenizer_of(name: str, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    folder = tmp_path_factory.mktemp(name)
    family_folder(folder, FAMILIES[name])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    return tokenizer


@pytest.fixture(scope="module", params=[*FAMILIES])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Tokenizer:
    return tokenizer_of(request.param, tmp_path_factory)


_ODD = [
    "\n",
    " ",
    "  \n",
    "é",
    "e\u0301",
    "🌍",
    "東京",
    "\u200b",
    "\ufeff",
    "'s",
    "12345",
    "\r\n",
    "\t",
]


@settings(max_examples=120)
@given(data=st.data())
def test_the_same_as_the_whole(tokenizer: Tokenizer, data: st.DataObject) -> None:
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    piece = st.sampled_from([*added, *_ODD, "hello", "<|im", "|>"]) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=8
    )
    texts = data.draw(st.lists(st.lists(piece, max_size=12).map("".join), min_size=1, max_size=5))
    batch = []
    for text in texts:
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
        batch.append(Rendered(text, tuple(pairwise(cuts))[::2]))
    encoder = Encoder(tokenizer)
    for _ in range(2):  # the second time from what was kept
        for rendered, sample in zip(batch, encoder.encode(batch, "assistant"), strict=True):
            expected = plain_way(tokenizer, rendered)
            assert sample.input_ids.tolist() == expected.input_ids.tolist(), rendered
            assert sample.labels.tolist() == expected.labels.tolist(), rendered


def test_pieces_are_used_where_they_hold(tokenizer: Tokenizer) -> None:
    assert Encoder(tokenizer)._pieces is not None


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tokenizer: setattr(tokenizer, "pre_tokenizer", pre_tokenizers.Metaspace()),
        lambda tokenizer: setattr(
            tokenizer, "pre_tokenizer", pre_tokenizers.ByteLevel(add_prefix_space=True)
        ),
        lambda tokenizer: setattr(tokenizer, "normalizer", normalizers.Lowercase()),
        lambda tokenizer: tokenizer.add_tokens([AddedToken("<x>", lstrip=True, normalized=False)]),
    ],
    ids=["Metaspace", "prefix space", "normalizer", "token that strips"],
)
def test_other_tokenizers_go_the_plain_way(spoil: object) -> None:
    tokenizer = standin.tokenizer()
    assert callable(spoil)
    spoil(tokenizer)
    encoder = Encoder(tokenizer)
    assert encoder._pieces is None
    text = "<|im_start|>user\nHello  <x> World<|im_end|>\n"
    rendered = Rendered(text, ((13, 20), (24, 31)))
    [sample] = encoder.encode([rendered], "assistant")
    expected = plain_way(tokenizer, rendered)
    assert sample.input_ids.tolist() == expected.input_ids.tolist()
    assert sample.labels.tolist() == expected.labels.tolist()


def test_text_that_the_normalizer_would_change_goes_the_plain_way() -> None:
    tokenizer = standin.tokenizer()
    tokenizer.normalizer = normalizers.NFC()
    text = "<|im_start|>cafe\u0301<|im_end|>"
    rendered = Rendered(text, ((12, len(text)),))
    [sample] = Encoder(tokenizer).encode([rendered], "assistant")
    assert sample.input_ids.tolist() == plain_way(tokenizer, rendered).input_ids.tolist()
    assert "caf\u00e9" in tokenizer.decode(sample.input_ids.tolist())


def test_a_token_of_header_and_answer_is_told(tmp_path_factory: pytest.TempPathFactory) -> None:
    tokenizer = tokenizer_of("qwen2.5", tmp_path_factory)
    header = "<|im_start|>assistant\n"
    joined, apart = f"{header}\n\nHi.<|im_end|>", f"{header}Hi.<|im_end|>"
    batch = [Rendered(text, ((len(header), len(text)),)) for text in (joined, apart)]
    assert Encoder(tokenizer).encode(batch, "assistant").straddling.tolist() == [True, False]


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "_CACHED_CHARACTERS", 100)
    tokenizer = standin.tokenizer()
    encoder = Encoder(tokenizer)
    pieces = encoder._pieces
    assert pieces is not None
    texts = [f"<|im_start|>{n} {'word ' * 9}<|im_end|>" for n in range(50)]
    for text in [*texts, *texts[:3], *texts]:
        [sample] = encoder.encode([Rendered(text, ())], "all")
        assert sample.input_ids.tolist() == tokenizer.encode(text, add_special_tokens=False).ids
        assert len(pieces._seen._young) + len(pieces._seen._old) < 12


def test_an_empty_batch_and_an_empty_text() -> None:
    encoder = Encoder(standin.tokenizer())
    assert len(encoder.encode([], "assistant")) == 0
    [sample] = encoder.encode([Rendered("", ())], "assistant")
    assert (len(sample.input_ids), sample.supervised) == (0, 0)


def test_counts_of_a_batch() -> None:
    tokenizer = standin.tokenizer()
    texts = ["<|im_start|>a<|im_end|>", "<|im_end|>", "bcd"]
    batch = [Rendered(text, ((0, len(text)),)) for text in texts[:2]] + [Rendered(texts[2], ())]
    encoded = Encoder(tokenizer).encode(batch, "assistant")
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    assert encoded.lengths.tolist() == lengths
    assert encoded.supervised().tolist() == [*lengths[:2], 0]
    assert [sample.supervised for sample in encoded] == [*lengths[:2], 0]


class Watched:
    """A tokenizer that says how long the texts are that it is given."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.longest = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def encode_batch(self, texts: list[str], **options: Any) -> Any:
        self.longest = max([self.longest, *map(len, texts)])
        return self._tokenizer.encode_batch(texts, **options)

    def encode_batch_fast(self, texts: list[str], **options: Any) -> Any:
        self.longest = max([self.longest, *map(len, texts)])
        return self._tokenizer.encode_batch_fast(texts, **options)


@pytest.mark.parametrize("words", ["Is the weather in Oslo clear? ", "東京の天気 ", "aaaaaaaaaa"])
def test_the_tokens_of_a_text_that_is_far_too_long_are_counted_in_bounded_memory(
    tokenizer: Tokenizer, words: str
) -> None:
    far_too_long = Rendered(words * (600_000 // len(words)), ())
    usual = Rendered("Is it clear in Oslo?", ((3, 5),))
    watched: Any = Watched(tokenizer)
    assert Encoder(watched).is_longer(far_too_long.text, 2048)
    encoded = Encoder(watched).encode([usual, far_too_long, usual], "assistant")
    assert watched.longest <= 64 * 1024
    whole = len(tokenizer.encode(far_too_long.text, add_special_tokens=False).ids)
    assert abs(encoded.lengths[1] - whole) < 20
    assert Encoder(tokenizer).is_longer(far_too_long.text, whole - 1)
    assert not Encoder(tokenizer).is_longer(far_too_long.text, whole)
    alone = Encoder(tokenizer).encode([usual], "assistant")[0]
    for sample in (encoded[0], encoded[2]):
        assert sample.input_ids.tolist() == alone.input_ids.tolist()
        assert sample.labels.tolist() == alone.labels.tolist()
