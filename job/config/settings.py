"""All settings, and what follows from them."""

from __future__ import annotations

from typing import Any, Final

from pydantic_settings import SettingsConfigDict

from job.config.operation import OperationSettings
from job.families import FAMILIES, ModelFamily
from job.profiles import PROFILES, Hyperparameters, resolved

PREFIX: Final = "FORGE_"
WITH_CREDENTIALS: Final = frozenset({"pushgateway_url"})
"""What may hold a password is in no record."""


class Settings(OperationSettings):
    """Every setting of the job. The variable is the field's name in capitals after `FORGE_`.

    A chain of classes, so that fields keep their order: training, evaluation, operation.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    @property
    def family(self) -> ModelFamily:
        return FAMILIES[self.model_family]

    @property
    def base_model(self) -> str:
        """What `FORGE_MODEL` or else the family names."""
        return self.model or self.family.base_model

    @property
    def trusts_model(self) -> bool:
        """Whether the model's own code may run."""
        return self.trust_remote_code == self.base_model

    @property
    def run_uri(self) -> str:
        return f"{self.output_uri}/{self.run_id}"

    def public(self) -> dict[str, Any]:
        """The settings as data, without what may hold credentials."""
        return self.model_dump(mode="json", exclude=set(WITH_CREDENTIALS))

    def hyperparameters(self) -> Hyperparameters:
        """The profile with the overrides on top."""
        return resolved(PROFILES[self.profile], vars(self))
