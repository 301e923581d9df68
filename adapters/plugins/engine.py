"""An engine of somebody else's, behind which whatever it raises has its name."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, contextmanager
from typing import Any, cast

from manent.domain.errors import DomainError
from manent.domain.extensions import EngineContext, EngineFactory, PluginError
from manent.domain.ports import InferenceEngine

_log = logging.getLogger("manent.plugins")


@asynccontextmanager
async def started_engine(
    name: str, factory: EngineFactory, context: EngineContext
) -> AsyncGenerator[InferenceEngine, None]:
    """The engine of a plugin, for as long as the context lasts.

    Raises:
        PluginError: it cannot be started.
    """
    try:
        starting = factory(context)
        engine = await starting.__aenter__()
    except Exception as error:
        raise PluginError(f"the engine {name!r} cannot be started: {error!r}") from error
    try:
        yield cast("InferenceEngine", NamedEngine(name, engine))
    finally:
        await starting.__aexit__(None, None, None)


class NamedEngine:
    """Passes everything on. Errors of the domain pass as they are; any other is a PluginError that names the engine."""

    def __init__(self, name: str, engine: InferenceEngine) -> None:
        self._name = name
        self._engine = engine

    def __getattr__(self, attribute: str) -> Any:
        found = getattr(self._engine, attribute)
        return functools.partial(self._called, attribute, found) if callable(found) else found

    def _called(self, method: str, call: Callable[..., Any], *args: object, **more: object) -> Any:
        with self._naming(method):
            result = call(*args, **more)
        if inspect.isasyncgen(result):
            return self._generated(method, cast("AsyncGenerator[object, None]", result))
        if isinstance(result, AbstractAsyncContextManager):
            return self._entered(method, result)
        return self._awaited(method, result) if inspect.isawaitable(result) else result

    async def _awaited(self, method: str, result: Awaitable[object]) -> object:
        with self._naming(method):
            return await result

    async def _generated(self, method: str, result: AsyncGenerator[object, None]) -> AsyncGenerator[object, None]:
        with self._naming(method):
            async with aclosing(result):
                async for item in result:
                    yield item

    @asynccontextmanager
    async def _entered(self, method: str, result: AbstractAsyncContextManager[object]) -> AsyncGenerator[object, None]:
        with self._naming(method):
            entered = await result.__aenter__()
        try:
            yield entered
        finally:
            await result.__aexit__(None, None, None)

    @contextmanager
    def _naming(self, method: str) -> Iterator[None]:
        try:
            yield
        except (DomainError, PluginError):
            raise
        except Exception as error:
            # By its type: what an engine says of its failure may be a user's words.
            what = f"the engine {self._name!r} failed in {method} ({type(error).__name__})"
            _log.error("%s", what)
            raise PluginError(what) from error
