"""A value is mended, and the run goes on: under the id that it has, however that came about."""

from __future__ import annotations

import json

import pytest

from tests.k8s.chart import CHART, VALUES, Manifest, env_of, example, jobs_of, only, pod_of, run

_MENDED = (
    'resources.limits={"memory": "48Gi"}',
    "terminationGracePeriodSeconds=110",
    "settings.stallSeconds=3600",
    "settings.saveSteps=10",
    'settings.allowFingerprintChange="data"',
)


def _run_id(job: Manifest) -> str:
    told = env_of(pod_of(job)["containers"][0])["FORGE_RUN_ID"]
    assert job["spec"]["template"]["metadata"]["labels"]["forge-job/run-id"] == told
    return told


@pytest.mark.parametrize("mended", _MENDED)
def test_a_derived_id_that_is_given_back_keeps_run_and_job(mended: str) -> None:
    before = only(example("first-run"), "Job")
    after = only(example("first-run", f'runId="{_run_id(before)}"', mended), "Job")
    assert after["spec"]["template"] != before["spec"]["template"], "hence it is deleted first"
    assert (_run_id(after), after["metadata"]["name"]) == (
        _run_id(before),
        before["metadata"]["name"],
    )


def test_an_entry_goes_on_as_the_run_that_it_was() -> None:
    """The others keep their ids, so that their Jobs are left alone."""
    before = [job for job in example("fleet") if _is_a_run(job)]
    entries: list[Manifest] = [
        {"name": "oslo", "datasetUri": "s3://bucket/data/oslo/"},
        {"name": "lima", "datasetUri": "s3://bucket/data/lima/"},
    ]
    old = {_run_id(job).split("-")[1]: _run_id(job) for job in before}
    entries[0] |= {"runId": old["oslo"], "settings": {"allowFingerprintChange": ["data"]}}
    entries[1] |= {"kueue": {"priorityClass": "release"}}
    after = [j for j in example("fleet", f"runs={json.dumps(entries)}") if _is_a_run(j)]
    assert [_run_id(job) for job in after] == [old["oslo"], old["lima"]]
    assert env_of(pod_of(after[0])["containers"][0])["FORGE_ALLOW_FINGERPRINT_CHANGE"] == "data"


def _is_a_run(job: Manifest) -> bool:
    labels = job["metadata"].get("labels", {})
    return job["kind"] == "Job" and "training" in labels.values()


def test_a_workflow_may_accept_a_change_as_it_is_told_its_runs_id() -> None:
    manifests = example("argo", 'settings.allowFingerprintChange="data"')
    assert any(m["kind"] == "WorkflowTemplate" for m in manifests)


def test_the_notes_say_how_the_run_goes_on() -> None:
    values = f"--values={VALUES / 'first-run.yaml'}"
    shown = run("helm", "install", "weather", str(CHART), "-n=ml", values, "--dry-run=client")
    name = only(example("first-run"), "Job")["metadata"]["name"]
    notes = shown.stdout.partition("NOTES:")[2]
    assert f"delete job {name} --cascade=foreground" in notes
    assert f"--set runId={name} --set <the mended value>" in notes


@pytest.mark.parametrize("kind", ["none", "jobset"])
def test_the_doctor_has_the_pod_that_trains(kind: str) -> None:
    """With its card, and without a probe: nothing of it answers on the port."""
    sets = (f'distributed.kind="{kind}"', 'nodeSelector={"pool": "a100"}')
    trains, looks = (
        pod_of(jobs_of(example("first-run", *sets, f'job.command="{command}"'))[0])
        for command in ("run", "doctor")
    )
    [container], [trainer] = looks.pop("containers"), trains.pop("containers")
    assert looks == trains
    assert (trainer.pop("args"), container.pop("args")) == (["run"], ["doctor"])
    probes = {"ports", "livenessProbe", "startupProbe"}
    assert trainer.keys() - container.keys() <= probes, "what it has less"
    assert "livenessProbe" not in container
    for name in container.keys() - {"env"}:
        assert container[name] == trainer[name], name
