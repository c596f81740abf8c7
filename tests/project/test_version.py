import re
from importlib.metadata import version
from pathlib import Path

from job.version import __version__

ROOT = Path(__file__).parents[2]


def test_changelog_starts_with_the_version_of_the_package() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## \[(.+?)\]", changelog, flags=re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__


def test_installed_distribution_has_the_version_of_the_package() -> None:
    assert version("forge-job") == __version__
