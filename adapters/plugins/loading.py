"""Plugins found by their entry points, and loaded where they are asked for; what is wrong with one is said by name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points

from manent.domain.extensions import EngineFactory, Middleware, PluginError

MIDDLEWARE_GROUP = "manent.middleware"
ENGINE_GROUP = "manent.engines"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugins:
    """What was loaded, by name, in the order in which it was asked for."""

    middleware: dict[str, Middleware] = field(default_factory=dict)
    engines: dict[str, EngineFactory] = field(default_factory=dict)


def installed_plugins() -> dict[str, Sequence[EntryPoint]]:
    """The entry points of both groups, by name; nothing of theirs is imported."""
    found: dict[str, list[EntryPoint]] = {}
    for group in (MIDDLEWARE_GROUP, ENGINE_GROUP):
        for point in entry_points(group=group):
            found.setdefault(point.name, []).append(point)
    return dict(found)


def load_plugins(names: Sequence[str]) -> Plugins:
    """Import and make the plugins of ``names``; others that are installed are left alone.

    Raises:
        PluginError: one is not installed, raises while it is imported or made, or is not what its group promises.
    """
    installed = installed_plugins()
    loaded = Plugins()
    for name in names:
        if name not in installed:
            near = difflib.get_close_matches(name, installed, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"installed are {', '.join(sorted(installed)) or 'none'}"
            raise PluginError(f"MANENT_PLUGINS names {name!r}, and no such plugin is installed; {hint}")
        for point in installed[name]:
            _load(name, point, loaded)
    return loaded


def _load(name: str, point: EntryPoint, loaded: Plugins) -> None:
    who = f"the plugin {name!r} ({_package(point)})"
    try:
        factory = point.load()
    except Exception as error:
        raise PluginError(f"{who} cannot be imported: {error!r}; take it out of MANENT_PLUGINS, or mend it") from error
    if not callable(factory):
        raise PluginError(f"{who} offers {point.value}, which cannot be called: it must be a factory")
    if point.group == ENGINE_GROUP:
        loaded.engines[name] = factory
        return
    try:
        made = factory()
    except Exception as error:
        raise PluginError(f"{who} cannot be started: {error!r}; take it out of MANENT_PLUGINS, or mend it") from error
    if not all(callable(getattr(made, method, None)) for method in ("before", "after")):
        raise PluginError(f"{who} made {type(made).__name__}, which lacks `before` or `after`")
    loaded.middleware[name] = made


def _package(point: EntryPoint) -> str:
    return "unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"
