"""The base model's licence: what its card says, else the family's, else nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from job.families import FAMILIES
from job.families.licence import Licence, of_model

QWEN = FAMILIES["qwen-2.5"]


def carded(folder: Path, text: str) -> Path:
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


def test_the_models_own_card_goes_first(tmp_path: Path) -> None:
    text = "---\nlicense: other\nlicense_name: qwen\nlicense_link: LICENSE\n---\n# Model\n"
    found = of_model(carded(tmp_path, text), QWEN.base_model, QWEN)
    assert found == Licence("other", "qwen", "LICENSE")


@pytest.mark.parametrize("name", [QWEN.base_model, QWEN.base_model + "@main"])
def test_the_familys_own_model_is_known(tmp_path: Path, name: str) -> None:
    found = of_model(tmp_path, name, QWEN)
    assert found is not None
    assert found.id == "apache-2.0"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# no block",
        "---\nlicense: [mit, apache-2.0]\n---\n",
        "---\nlicense: {a: b}\n---\n",
        "---\n: : :\n---\n",
        "---\nlicense: null\n---\n",
        "---\nlicense: ~\n---\n",
        "---\nlicense:\n---\n",
        "---\nlicense: mit\nmetrics: " + "[" * 3000 + "\n---\n",
        "---\n!!python/object/apply:os.system [id]\n---\n",
        "---\n- a\n---\n",
    ],
)
def test_any_other_model_that_says_nothing_has_none(tmp_path: Path, text: str) -> None:
    assert of_model(carded(tmp_path, text), "owner/other", QWEN) is None


@pytest.mark.parametrize(
    "other",
    ["date: 2024-02-30", "downloads: " + "1" * 5000, "version: !!int one", "on: !!timestamp x"],
)
def test_what_else_a_card_says_need_not_be_sound(tmp_path: Path, other: str) -> None:
    text = f"---\n{other}\nlicense: mit\n---\n"
    assert of_model(carded(tmp_path, text), "o/n", QWEN) == Licence("mit")


def test_a_name_over_several_lines_is_one_line(tmp_path: Path) -> None:
    found = of_model(carded(tmp_path, '---\nlicense: "a\\nb"\n---\n'), "o/n", QWEN)
    assert found == Licence("a b")
