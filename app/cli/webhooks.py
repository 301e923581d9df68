"""``manent webhooks``: on the database itself, with or without a server, which hears of it at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from manent.app.cli.database import opened_store
from manent.app.cli.output import literal, out, print_json, run, settings_or_fail
from manent.app.system import SystemClock
from manent.app.webhooks import WebhookCases, webhook_cases
from manent.domain.access import LOCAL_OPERATOR
from manent.domain.usecases.dead_letters import LIMIT_MAX
from manent.domain.usecases.manage_webhooks import WebhookWish
from manent.domain.webhooks import DeadLetter, Webhook

app = typer.Typer(help="Webhooks: have events of the log sent to an address.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
Id = Annotated[str, typer.Argument(help="Id of the webhook, as wh_….")]


@app.command()
def create(
    url: Annotated[str, typer.Argument(help="Where messages are posted.")],
    *,
    event: Annotated[list[str] | None, typer.Option(help="A type of events to send; repeat it for more.")] = None,
    content: Annotated[bool, typer.Option("--content", help="With what events say, not their headers alone.")] = False,
    description: Annotated[str, typer.Option(help="For whom it is.")] = "",
    json: Json = False,
) -> None:
    """Make a webhook; its secret is shown this once."""
    wish = WebhookWish(url=url, events=tuple(event or ()), content=content, description=description)

    async def create_it() -> tuple[Webhook, str]:
        async with _opened() as cases:
            return await cases.manage.create(LOCAL_OPERATOR, wish)

    webhook, secret = run(create_it())
    if json:
        print_json({**asdict(webhook), "secret": secret})
        return
    out.print(f"{webhook.webhook_id} is sent to {literal(webhook.url)}", soft_wrap=True)
    out.print(f"its secret, shown this once: {secret}", soft_wrap=True)


@app.command("list")
def list_webhooks(*, json: Json = False) -> None:
    """List the webhooks."""

    async def list_them() -> list[Webhook]:
        async with _opened() as cases:
            return list(await cases.manage.list_all(LOCAL_OPERATOR))

    found = run(list_them())
    if json:
        for webhook in found:
            print_json(webhook)
        return
    table = Table("id", "url", "events", "content", "state", box=None)
    for webhook in found:
        state = "enabled" if webhook.enabled else f"disabled: {webhook.reason or 'by an operator'}"
        events = ", ".join(webhook.events) or "all"
        cells = (webhook.webhook_id, webhook.url, events, "yes" if webhook.content else "no", state)
        table.add_row(*map(literal, cells))
    out.print(table)


@app.command()
def enable(webhook_id: Id) -> None:
    """Go on sending, from where it ended."""
    _change(webhook_id, WebhookWish(enabled=True))
    out.print(f"{literal(webhook_id)} is enabled")


@app.command()
def disable(webhook_id: Id) -> None:
    """Send nothing until it is enabled again; nothing is lost meanwhile."""
    _change(webhook_id, WebhookWish(enabled=False))
    out.print(f"{literal(webhook_id)} is disabled")


@app.command()
def rotate(webhook_id: Id) -> None:
    """Give a webhook a new secret; the old one signs as well for a day."""

    async def rotate_it() -> str:
        async with _opened() as cases:
            return (await cases.manage.rotate(LOCAL_OPERATOR, webhook_id))[1]

    out.print(f"its new secret, shown this once: {run(rotate_it())}", soft_wrap=True)


@app.command()
def delete(webhook_id: Id) -> None:
    """Remove a webhook."""

    async def delete_it() -> None:
        async with _opened() as cases:
            await cases.manage.delete(LOCAL_OPERATOR, webhook_id)

    run(delete_it())
    out.print(f"{literal(webhook_id)} is removed")


@app.command("dead-letters")
def dead_letters(
    webhook_id: Id,
    *,
    after: Annotated[int, typer.Option(min=0, help="Positions above this one.")] = 0,
    json: Json = False,
) -> None:
    """List what the receiver did not take."""

    async def list_them() -> list[DeadLetter]:
        async with _opened() as cases:
            page, _ = await cases.letters.page(LOCAL_OPERATOR, webhook_id, after=after, limit=LIMIT_MAX)
            return list(page)

    for letter in run(list_them()):
        if json:
            print_json(letter)
        else:
            words = f"{letter.position} {letter.event_type}: {letter.reason} ({letter.attempts} attempts)"
            out.print(literal(words), soft_wrap=True)


@app.command()
def redeliver(webhook_id: Id, position: Annotated[int, typer.Argument(min=1, help="Position of the event.")]) -> None:
    """Send a dead letter again, now."""

    async def send_it() -> None:
        async with _opened() as cases:
            await cases.letters.redeliver(LOCAL_OPERATOR, webhook_id, position)

    run(send_it())
    out.print(f"{position} was taken")


def _change(webhook_id: str, wish: WebhookWish) -> None:
    async def change_it() -> None:
        async with _opened() as cases:
            await cases.manage.change(LOCAL_OPERATOR, webhook_id, wish)

    run(change_it())


@asynccontextmanager
async def _opened() -> AsyncGenerator[WebhookCases, None]:
    settings = settings_or_fail()
    async with opened_store(settings) as store, webhook_cases(settings, store, SystemClock()) as cases:
        yield cases


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="webhooks")
