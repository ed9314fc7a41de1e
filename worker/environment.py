"""The settings of this process: with ``migrations.migrate``, the places that read the environment."""

import os

from compliance.settings import Settings, load_settings


def settings(profile: str | None = None) -> Settings:
    """Return the settings of this process."""
    return load_settings(os.environ, profile=profile)  # noqa: TID251 - what it is for
