"""What commands on recorded sessions share: the database opened for them, and a conversation in the terminal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from manent.adapters.projections.lru import LruContextCache
from manent.adapters.store.session_file import read_events_file
from manent.app.cli.database import opened_store
from manent.app.cli.output import literal, out
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.domain.messages import Message, Role
from manent.domain.session import SessionState
from manent.domain.usecases.replays import Recorded, build_recorded
from manent.domain.usecases.sessions import Sessions

COLORS = {Role.SYSTEM: "magenta", Role.USER: "cyan", Role.ASSISTANT: "green", Role.TOOL: "yellow"}


@asynccontextmanager
async def opened_sessions(settings: Settings) -> AsyncGenerator[Recorded, None]:
    """What needs the log alone, on the database itself, with or without a server; ends the command as it does."""
    async with opened_store(settings) as store:
        sessions = Sessions(store, LruContextCache(budget_bytes=0))
        clock, ids = SystemClock(), RandomIds()
        yield build_recorded(store=store, sessions=sessions, clock=clock, ids=ids, read_events_file=read_events_file)


def print_message(message: Message) -> None:
    """A message, with nothing in it that the terminal would obey."""
    name = "" if message.name is None else f" ({literal(message.name)})"
    out.print(f"[{COLORS[message.role]}]{message.role}{name}[/]: {literal(message.text)}", soft_wrap=True)
    for image in message.images:
        size = f"{image.width} x {image.height} pixels"
        out.print(literal(f"  [{image.media_type}, {size}, {image.digest}]"), soft_wrap=True)
    for call in message.tool_calls:
        out.print(f"  [yellow]calls[/] {literal(f'{call.name}({call.arguments})')}", soft_wrap=True)


def replay_object(state: SessionState) -> dict[str, object]:
    """A conversation as it stood, for ``--json``."""
    return {
        "object": "session.replay",
        "id": state.session_id,
        "version": state.version,
        "status": state.status,
        "owner": state.owner,
        "parent": state.parent,
        "metadata": dict(state.metadata),
        "messages": [
            {"id": message.message_id, "role": message.role, "content": message.text, "images": _images(message)}
            for message in state.messages
        ],
    }


def _images(message: Message) -> list[dict[str, object]]:
    """What the images are, without their bytes."""
    return [
        {"digest": image.digest, "media_type": image.media_type, "width": image.width, "height": image.height}
        for image in message.images
    ]
