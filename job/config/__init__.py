"""The settings of a run: read once from `FORGE_*`, checked at once, frozen, free of torch.

`load_settings` reports every problem in one error: values that don't parse, values out of range,
names that are missing, and names that don't exist, each with the nearest one that does.
"""

from job.config.load import SETTINGS_VARIABLE, load_settings, settings_in
from job.config.settings import PREFIX, WITH_CREDENTIALS, Settings

__all__ = [
    "PREFIX",
    "SETTINGS_VARIABLE",
    "WITH_CREDENTIALS",
    "Settings",
    "load_settings",
    "settings_in",
]
