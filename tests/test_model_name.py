"""What names a model, taken apart."""

from __future__ import annotations

import pytest

from job.model_name import ModelName


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("owner/name", ModelName("hub", "owner/name")),
        ("owner/name@refs/pr/1", ModelName("hub", "owner/name", "refs/pr/1")),
        ("name@v1", ModelName("hub", "name", "v1")),
        ("/models/llama", ModelName("folder", "/models/llama")),
        ("/models/llama@16bit", ModelName("folder", "/models/llama@16bit")),
        ("s3://models/qwen@16bit/", ModelName("mirror", "s3://models/qwen@16bit/")),
    ],
)
def test_its_kind_its_name_and_its_revision(text: str, expected: ModelName) -> None:
    assert ModelName.parse(text) == expected
    assert str(expected) == text


def test_an_empty_revision_is_none() -> None:
    assert ModelName.parse("owner/name@") == ModelName("hub", "owner/name")
