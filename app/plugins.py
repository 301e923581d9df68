"""The engine that a plugin brings, by the name that the settings have for it."""

from __future__ import annotations

import difflib
from contextlib import AbstractAsyncContextManager

from manent.adapters.plugins.engine import started_engine
from manent.adapters.plugins.loading import Plugins
from manent.app.settings import Settings
from manent.domain.extensions import EngineContext, PluginError
from manent.domain.ports import InferenceEngine

OWN_ENGINES = ("mlx", "scripted")


def plugin_engine(settings: Settings, plugins: Plugins) -> AbstractAsyncContextManager[InferenceEngine]:
    """The engine of the settings, to be started.

    Raises:
        PluginError: no plugin that is loaded has it.
    """
    factory = plugins.engines.get(settings.engine)
    if factory is None:
        known = (*OWN_ENGINES, *plugins.engines)
        near = difflib.get_close_matches(settings.engine, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        raise PluginError(
            f"MANENT_ENGINE={settings.engine!r} is no engine; {hint} That of a plugin has to be in MANENT_PLUGINS too"
        )
    context = EngineContext(home=settings.home, models_file=settings.models_file, models_folder=settings.models_folder)
    return started_engine(settings.engine, factory, context)
