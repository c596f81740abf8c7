"""docs/kubernetes.md and docs/fleets.md: commands run or rendered, as far as needs no cluster."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from job.card.card import CURVE_NAME
from job.commands.arguments import parser
from job.errors import EXIT_CODES
from job.version import __version__
from tests.k8s.chart import ROOT, Manifest, only, pod_of, run

PAGE = (ROOT / "docs" / "kubernetes.md").read_text()
FLEETS = (ROOT / "docs" / "fleets.md").read_text()
RUNBOOK = (ROOT / "docs" / "runbook.md").read_text()
PAGES = PAGE + FLEETS + "".join((ROOT / d / "README.md").read_text() for d in ("helm", "."))


def _commands(program: str) -> list[str]:
    """Commands of the pages' shell blocks, and those that a sentence quotes."""
    blocks = re.findall(r"```sh\n(.*?)```", PAGES, re.DOTALL)
    lines = [re.sub(r"(?:\\|(?<=,))\n\s*", "", re.sub("(?m)^ {3}", "", block)) for block in blocks]
    quoted = [q for q in re.findall(r"`([^`\n]+)`", PAGES) if " " in q]
    every = [line.strip() for text in lines for line in text.splitlines()] + quoted
    return sorted({c.partition(" #")[0].strip() for c in every if c.startswith(program + " ")})


@pytest.mark.parametrize("command", _commands("helm"))
def test_a_helm_command_renders(command: str) -> None:
    words = shlex.split(re.sub(r"<[\w ]+>", "x", command))
    if words[1] in ("test", "uninstall", "get"):
        named = [w for w in words[2:] if w in ("weather", "doctor")]
        assert named or words[1:] == ["test"], "the releases that the page installs"
        return
    if words[1] == "upgrade":
        words += ["--values", "tests/k8s/values/first-run.yaml"]
        words.remove("--reset-then-reuse-values")
    assert words[1] in ("install", "upgrade")
    rendered = run("helm", "template", *words[2:])
    assert rendered.returncode == 0, rendered.stderr
    assert [m for m in yaml.safe_load_all(rendered.stdout) if m]


@pytest.mark.parametrize("command", _commands("argo"))
def test_an_argo_command_names_a_template_and_parameters_that_there_are(command: str) -> None:
    words = shlex.split(command)
    assert words[1] == "submit"
    template = _workflow_templates()[words[words.index("--from") + 1]]
    given = {w.partition("=")[0] for option, w in pairwise(words) if option == "-p"}
    assert given <= {p["name"] for p in template["spec"]["arguments"]["parameters"]}
    accounts = [m for m in _stored("rbac") if m["kind"] == "ServiceAccount"]
    assert template["spec"]["serviceAccountName"] in [a["metadata"]["name"] for a in accounts]


def _workflow_templates() -> dict[str, Manifest]:
    """Those that the pages install, from a file or with the chart."""
    install = next(c for c in _commands("helm") if "argo.enabled=true" in c)
    rendered = run("helm", "template", *shlex.split(install)[2:]).stdout
    manifests = [m for m in yaml.safe_load_all(rendered) if m]
    for name in ("workflowtemplate", "sweep", "fleet"):
        manifests += _stored(name)
    found = [m for m in manifests if m["kind"] == "WorkflowTemplate"]
    return {f"workflowtemplate/{m['metadata']['name']}": m for m in found}


def _stored(name: str) -> list[Manifest]:
    text = (ROOT / "k8s" / "argo" / f"{name}.yaml").read_text()
    return [m for m in yaml.safe_load_all(text) if m]


@pytest.mark.parametrize("command", _commands("kubectl"))
def test_a_kubectl_command_is_one(command: str) -> None:
    words = shlex.split(re.sub(r"<[\w ]+>", "x", command))
    if "apply" in words:
        flag = "-k" if "-k" in words else "-f"
        path = ROOT / words[words.index(flag) + 1]
        if flag == "-k":
            assert run("kubectl", "kustomize", str(path)).returncode == 0
        else:
            assert [m for m in yaml.safe_load_all(path.read_text()) if m]
        return
    verb = next(w for w in words[1:] if w in ("create", "logs", "get", "describe", "delete"))
    subcommand = [verb, *(["secret", "generic"] if "secret" in words else [])]
    known = run("kubectl", *subcommand, "--help").stdout + run("kubectl", "options").stdout
    flags = [w.partition("=")[0] for w in words if w.startswith("--")]
    assert [flag for flag in flags if flag not in known] == []


def test_labels_that_a_command_selects_by_are_the_jobs() -> None:
    """A label that no pod has selects nothing, and says nothing."""
    install = next(c for c in _commands("helm") if "profile=fast_dev" in c)
    rendered = run("helm", "template", *shlex.split(install)[2:])
    job = only([m for m in yaml.safe_load_all(rendered.stdout) if m], "Job")
    selectors = re.findall(r"-l (\S+?)=(\S+)", PAGE)
    assert len(selectors) >= 2
    for label, value in selectors:
        assert job["metadata"]["labels"][label] == value.rstrip("`")
        assert job["spec"]["template"]["metadata"]["labels"][label] == value.rstrip("`")
    assert pod_of(job)


@pytest.mark.parametrize(
    "command",
    [
        c
        for p in ("python -m job", "forge-job", ".venv/bin/forge-job", "docker run")
        for c in _commands(p)
    ],
)
def test_a_command_of_ours_is_one(command: str) -> None:
    spelled = re.sub(r"<[\w ]+>|FILE", "x", command).replace("GB", "24").replace("SHARE", "0.8")
    words = shlex.split(re.sub(r"[\[\]]", "", spelled))
    if words[0] == "docker":
        words = words[words.index(f"registry.example.com/forge-job:{__version__}-cpu") :]
    arguments = words[3:] if words[0] == "python" else words[1:]
    if arguments != ["status"]:  # named in a sentence, not spelled out
        parser().parse_args(arguments)


def test_values_that_the_pages_name_are_there() -> None:
    from scripts.chart import OWN_VALUES, values

    schema = json.loads((ROOT / "helm" / "values.schema.json").read_text())
    settings = schema["properties"]["settings"]["properties"]
    known = {v.path for v in values()} | set(OWN_VALUES.values())
    roots = {path.partition(".")[0] for path in known if "." in path}
    for named in re.findall(r"`([a-z]\w*(?:\.\w+)+)(?:=[^`]*)?`", PAGE + FLEETS):
        root, _, rest = named.partition(".")
        if root == "settings":
            assert rest in settings, named
        elif root in roots:
            assert any(path == named or named.startswith(path + ".") for path in known), named


def test_every_exit_code_that_ends_in_trouble_has_a_line() -> None:
    table = PAGE[PAGE.index("## When something is wrong") :]
    listed = {int(code) for code in re.findall(r"(?m)^\| (\d+) \|", table)}
    assert listed == {code for code in EXIT_CODES if code} | {137}


def test_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", PAGE + FLEETS + RUNBOOK):
        assert (ROOT / "docs" / link).exists(), link
    inside = re.findall(r"\]\((?:kubernetes[.]md)?#([^)]*)\)", PAGE + FLEETS)
    inside += re.findall(r"\]\((?:kubernetes[.]md)#([^)]*)\)", RUNBOOK)
    headings = {h.lower().replace(" ", "-") for h in re.findall(r"(?m)^#+ (.*)$", PAGE + FLEETS)}
    assert set(inside) <= headings


def test_a_run_that_has_ended_for_good_is_not_said_to_be_started_again() -> None:
    """The same id again ends with 80 at once; after 81 it goes on to the same end."""
    failed = RUNBOOK[RUNBOOK.index("## ForgeJobFailed") : RUNBOOK.index("## ForgeJobLossNotFinite")]
    again = re.search(r"Job has ended\. ([\d, and]+): mend [^;]*with the same id", failed)
    another = re.search(r"([\d, and]+): start another run", failed)
    assert again
    assert another
    ended = {int(code) for code in re.findall(r"\d+", again[1] + another[1])}
    assert ended == {code for code, (_, policy) in EXIT_CODES.items() if policy == "FailJob"}
    assert re.findall(r"\d+", another[1]) == ["80", "81"]


def test_what_a_command_needs_is_asked_for_before_it() -> None:
    """The files of Argo name no registry, and a Secret that nobody has made yet."""
    for page in (PAGE, FLEETS):
        before = page[: page.index("kubectl apply -n ml -f k8s/argo/workflowtemplate.yaml")]
        told = before[before.rindex("\n## ") :]
        assert "<registry>" in told
        assert "Secret" in told


def test_the_adapters_page_lists_what_a_card_shows() -> None:
    assert f"`{CURVE_NAME}`" in (ROOT / "docs" / "adapter.md").read_text()


def policies() -> list[dict[str, Any]]:
    """The policies of the page: AWS' and Ceph's."""
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]


def test_both_policies_give_the_same_rights() -> None:
    aws, ceph = policies()
    for statement in ceph["Statement"]:
        assert statement.pop("Principal") == {"AWS": ["arn:aws:iam:::user/forge-job"]}
    assert aws == ceph


def test_the_image_is_built_as_the_page_says() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"(?m)^\s*make (\w+)", PAGE):
        assert re.search(rf"(?m)^{target}:", makefile), target


def test_bash_reads_every_block() -> None:
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL):
        text = re.sub(r"<[\w ]+>", "x", block)
        checked = subprocess.run(["bash", "-n"], input=text, text=True, check=False)
        assert checked.returncode == 0, block
    assert Path(ROOT / "scripts" / "wait_for_job.sh").exists()
