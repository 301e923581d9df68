"""Settings of what reaches beyond the server: webhooks and plugins. A part of ``settings.py``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings


class ExtensionSettings(BaseSettings):
    """What is sent where, and whose code is loaded."""

    plugins: str = Field("", description="Names of the plugins to load, with commas between them; none by themselves.")
    webhook_urls: Literal["https", "http", "private"] = Field(
        "https", description="Where webhooks may be: public ones by https; by http as well; private ones too."
    )
    webhook_attempts_max: int = Field(
        10, ge=1, le=100, description="How often a message is sent before it is a dead letter; ten take four hours."
    )
    webhook_deliveries_max: int = Field(16, ge=1, le=1000, description="How many messages are under way at once.")

    @property
    def plugin_names(self) -> list[str]:
        """The plugins to load, each once, in their order."""
        return list(dict.fromkeys(name for part in self.plugins.split(",") if (name := part.strip())))
