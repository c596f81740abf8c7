"""What the run on this node is to be: from its settings, or from what is left of them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from job.config import Settings
from job.model_name import ModelName
from job.stages.workdir import run_folder


@dataclass(frozen=True)
class Wanted:
    """What the checks of the node are held against."""

    settings: Settings | None
    """None where they are wrong: what they say of the node is then taken as it stands."""
    gpu: bool = True
    """False: nobody asks for the GPU, on a machine that has none."""

    @property
    def needs_gpu(self) -> bool:
        engine = self.settings.engine if self.settings else os.environ.get("FORGE_ENGINE")
        return self.gpu and engine != "reference"

    @property
    def work_dir(self) -> Path:
        """Where the run puts everything; raises `OSError` where there is no such place."""
        if self.settings is None:
            return Path(os.environ.get("FORGE_WORK_DIR") or tempfile.gettempdir())
        if self.settings.work_dir is None:
            return Path(tempfile.gettempdir())
        return run_folder(self.settings.work_dir, self.settings)

    @property
    def kept_dir(self) -> Path | None:
        """The part of it that a later attempt finds again; None where each has a new one."""
        settings = self.settings
        return self.work_dir if settings is not None and settings.work_dir is not None else None

    @property
    def takes_from_hub(self) -> bool:
        """Whether the model comes from a hub, whose library has folders of its own."""
        return self.settings is None or ModelName.parse(self.settings.base_model).kind == "hub"


def existing(folder: Path) -> Path:
    """The nearest place above `folder`, or itself, that is there: a run makes the rest."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return place
