"""What commands that look at a run do as the run itself would. `job.commands.output` is imported
before signals are handled, so this, which needs the settings, is not a part of it."""

from __future__ import annotations

import os
from contextlib import suppress

from job.config import load_settings
from job.errors import SettingsError
from job.logs import configure


def log_as_the_run() -> None:
    """In its `FORGE_LOG_FORMAT`, unless the settings are wrong: the command tells of that."""
    configure("auto", os.environ.get("FORGE_RUN_ID"))
    with suppress(SettingsError):
        settings = load_settings()
        configure(settings.log_format, settings.run_id)
