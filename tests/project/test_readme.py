from pathlib import Path

import pytest

from job.config import Settings
from job.errors import EXIT_CODES, JobError, Stopped
from scripts import settings_table

README_WITH_MARKERS = (
    "before\n<!-- settings:begin -->\nold\n<!-- settings:end -->\nbetween\n"
    "<!-- exit-codes:begin -->\n<!-- exit-codes:end -->\nafter\n"
)


def test_tables_in_the_readme_are_fresh() -> None:
    readme = settings_table.README.read_text(encoding="utf-8")
    assert settings_table.refreshed(readme) == readme, "run scripts/settings_table.py"


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    assert Settings.model_fields[name].description
    assert f"| `FORGE_{name.upper()}` |" in settings_table.settings_table()


def test_every_exit_code_an_error_carries_is_in_the_table() -> None:
    def family(kind: type[BaseException]) -> set[type[BaseException]]:
        return {kind}.union(*(family(child) for child in kind.__subclasses__()))

    carried = {kind.exit_code for kind in family(JobError) | family(Stopped)}  # type: ignore[attr-defined]
    assert carried | {0} == set(EXIT_CODES)


def test_a_hyperparameter_defaults_to_the_profile() -> None:
    rows = settings_table.settings_table().splitlines()
    assert any(row.startswith("| `FORGE_LORA_R` | the profile's |") for row in rows)
    assert any(row.startswith("| `FORGE_RUN_ID` | required |") for row in rows)
    assert any(row.startswith("| `FORGE_SAVE_SECONDS` | `600` |") for row in rows)


def test_only_what_is_between_the_markers_changes() -> None:
    text = settings_table.refreshed(README_WITH_MARKERS)
    assert text.startswith("before\n<!-- settings:begin -->\n| Variable |")
    assert "\n<!-- settings:end -->\nbetween\n<!-- exit-codes:begin -->\n| Code |" in text
    assert text.endswith("\n<!-- exit-codes:end -->\nafter\n")
    assert settings_table.refreshed(text) == text


def test_a_stale_table_fails_the_check_and_is_then_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(README_WITH_MARKERS, encoding="utf-8")
    monkeypatch.setattr(settings_table, "README", readme)
    assert settings_table.main(["--check"]) == 1
    assert "stale" in capsys.readouterr().err
    assert readme.read_text(encoding="utf-8") == README_WITH_MARKERS
    assert settings_table.main([]) == 0
    assert settings_table.main(["--check"]) == 0


def test_a_readme_without_markers_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(settings_table, "README", tmp_path / "README.md")
    assert settings_table.main(["--check"]) == 1
    (tmp_path / "README.md").write_text("no table here\n", encoding="utf-8")
    assert settings_table.main(["--check"]) == 1
    assert "settings:begin" in capsys.readouterr().err
