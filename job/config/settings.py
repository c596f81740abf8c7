"""All settings, and what follows from them."""

from __future__ import annotations

from typing import Any, Final

from pydantic_settings import SettingsConfigDict

from job.config.operation import OperationSettings
from job.families import FAMILIES, ModelFamily
from job.profiles import PROFILES, Hyperparameters

PREFIX: Final = "FORGE_"


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
        return self.model_dump(mode="json", exclude={"pushgateway_url"})

    def hyperparameters(self) -> Hyperparameters:
        """The profile with the overrides on top.

        Epochs or a warm-up ratio given alone replace the profile's step counts: they would
        otherwise be silently outranked by them.
        """
        profile = dict(vars(PROFILES[self.profile]))
        given = {k: v for k in profile if (v := getattr(self, k)) is not None}
        if "num_train_epochs" in given:
            given.setdefault("max_steps", -1)
        if "warmup_ratio" in given:
            given.setdefault("warmup_steps", 0)
        elif "warmup_steps" in given:
            given["warmup_ratio"] = 0.0  # else no steps would mean the profile's ratio
        return Hyperparameters(**(profile | given))
