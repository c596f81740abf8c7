"""Kueue's objects against its types of v1beta2: no registry has its schemas.

Fields, choices and the rules between fields are those of apis/kueue/v1beta2/*_types.go, as far as
the project's files use them; a field that isn't here is refused, so it has to be looked up first.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Strict):
    name: str = Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    namespace: str | None = None


class _Object(_Strict):
    apiVersion: Literal["kueue.x-k8s.io/v1beta2"]  # noqa: N815
    kind: str
    metadata: _Metadata


class _Quota(_Strict):
    name: str
    nominalQuota: str  # noqa: N815
    borrowingLimit: str | None = None  # noqa: N815
    lendingLimit: str | None = None  # noqa: N815


class _FlavorQuotas(_Strict):
    name: str
    resources: list[_Quota]


class _Group(_Strict):
    coveredResources: list[str]  # noqa: N815
    flavors: list[_FlavorQuotas]

    @model_validator(mode="after")
    def _each_flavor_covers_all(self) -> Self:
        for flavor in self.flavors:
            assert [quota.name for quota in flavor.resources] == self.coveredResources
        return self


class _Preemption(_Strict):
    withinClusterQueue: Literal["Never", "LowerPriority", "LowerOrNewerEqualPriority"] = "Never"  # noqa: N815
    reclaimWithinCohort: Literal["Never", "LowerPriority", "Any"] = "Never"  # noqa: N815


class _ClusterQueueSpec(_Strict):
    cohortName: str | None = None  # noqa: N815
    namespaceSelector: dict[str, Any]  # noqa: N815
    queueingStrategy: Literal["StrictFIFO", "BestEffortFIFO"]  # noqa: N815
    preemption: _Preemption
    resourceGroups: list[_Group]  # noqa: N815

    @model_validator(mode="after")
    def _only_a_cohort_lends(self) -> Self:
        quotas = [q for g in self.resourceGroups for f in g.flavors for q in f.resources]
        limited = [q for q in quotas if q.borrowingLimit or q.lendingLimit]
        assert self.cohortName or not limited
        return self


class _Toleration(_Strict):
    key: str
    operator: Literal["Equal", "Exists"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class _ResourceFlavorSpec(_Strict):
    nodeLabels: dict[str, str] = Field(max_length=8)  # noqa: N815
    tolerations: list[_Toleration] = Field(max_length=8)


class _LocalQueueSpec(_Strict):
    clusterQueue: str  # noqa: N815


class _ClusterQueue(_Object):
    spec: _ClusterQueueSpec


class _ResourceFlavor(_Object):
    spec: _ResourceFlavorSpec


class _LocalQueue(_Object):
    spec: _LocalQueueSpec


class _WorkloadPriorityClass(_Object):
    value: int
    description: str = Field("", max_length=2048)


_KINDS: dict[str, type[_Object]] = {
    "ClusterQueue": _ClusterQueue,
    "ResourceFlavor": _ResourceFlavor,
    "LocalQueue": _LocalQueue,
    "WorkloadPriorityClass": _WorkloadPriorityClass,
}


def check(manifest: dict[str, Any]) -> None:
    """Raises pydantic's `ValidationError`."""
    _KINDS[manifest["kind"]].model_validate(manifest)
