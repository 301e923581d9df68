"""``manent keys``: API keys, in the database itself or, with ``--url``, through a running server."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import quote

import typer
from rich.table import Column, Table

from manent.adapters.auth.key_secrets import HmacKeySecrets
from manent.adapters.auth.secret_file import AccessSecret, AccessSecretUnusable
from manent.adapters.http.keys import DEFAULT_SCOPES, key_members
from manent.adapters.store.database import ensure_any_log
from manent.app.cli.database import bring_up_to_date, failing, opened_store
from manent.app.cli.output import fail, literal, out, print_json, run, settings_or_fail
from manent.app.cli.server import Url, ask, connected
from manent.app.settings import Settings
from manent.app.system import RandomIds, SystemClock
from manent.domain.access import LOCAL_OPERATOR, Principal, Scope
from manent.domain.access_events import KeyGrant
from manent.domain.access_keys import US_PER_S, KeyState
from manent.domain.limits import RequestLimits
from manent.domain.usecases.key_table import KeyTable
from manent.domain.usecases.manage_keys import OVERLAP_S, Issued, ManageKeys, RotateKey

HELP = "API keys: make, list, rotate and revoke them, in this machine's database or at --url."
PAGE = 100
S_PER_DAY = 24 * 3600

app = typer.Typer(help=HELP, no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line.")]
KeyId = Annotated[str, typer.Argument(help="Id of the key, key_…")]
Days = Annotated[float | None, typer.Option("--expires-in-days", help="After how many days it ends.", min=0.0001)]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What it is for.")],
    *,
    subject: Annotated[str, typer.Option(help="Whose conversations it starts and reads, such as a service's name.")],
    tenant: Annotated[str, typer.Option(help="The tenant; at --url, the administrator's own.")] = "default",
    scope: Annotated[
        list[Scope] | None, typer.Option(help="What it allows; chat, sessions and models:read unless given.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="The only models that exist for it; all unless given.")
    ] = None,
    default_model: Annotated[str | None, typer.Option(help="What the model 'default' is for it.")] = None,
    fallback_model: Annotated[
        list[str] | None, typer.Option(help="To try, in this order, where a model cannot be used.")
    ] = None,
    requests_per_minute: Annotated[int | None, typer.Option(min=1, help="Bound of its own.")] = None,
    requests_per_hour: Annotated[int | None, typer.Option(min=1, help="Bound of its own.")] = None,
    tokens_per_minute: Annotated[int | None, typer.Option(min=1, help="Bound of its own.")] = None,
    tokens_per_hour: Annotated[int | None, typer.Option(min=1, help="Bound of its own.")] = None,
    running_max: Annotated[int | None, typer.Option(min=1, help="Requests at once.")] = None,
    expires_in_days: Days = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Make a key. Its secret is printed this once, and kept nowhere."""
    limits = RequestLimits(
        requests_per_minute=requests_per_minute,
        requests_per_hour=requests_per_hour,
        tokens_per_minute=tokens_per_minute,
        tokens_per_hour=tokens_per_hour,
        running_max=running_max,
    )
    grant = KeyGrant(
        name=name,
        tenant=tenant,
        subject=subject,
        scopes=tuple(scope or DEFAULT_SCOPES),
        models=tuple(model) if model else None,
        default_model=default_model,
        fallback_models=tuple(fallback_model or ()),
        limits=None if limits == RequestLimits() else limits,
    )
    if url is not None:
        _print_issued(_remote(url, "POST", "", _body(grant, expires_in_days)), json=json)
        return
    _print_issued(_issued_members(run(_create(settings_or_fail(), grant, expires_in_days))), json=json)


@app.command("list")
def list_keys(*, url: Url = None, json: Json = False) -> None:
    """List the keys: all of the database, or the tenant's at --url."""
    found = _remote_list(url) if url is not None else [_members(key) for key in run(_all(settings_or_fail()))]
    if json:
        for key in found:
            print_json(key)
        return
    table = Table(Column("id", no_wrap=True), "name", "begins with", "tenant", "subject", "scopes", "status", box=None)
    for key in found:
        cells = (key["id"], key["name"], key["shown"] + "…", key["tenant"], key["subject"])
        table.add_row(*(literal(cell) for cell in cells), literal(" ".join(key["scopes"])), key["status"])
    out.print(table)


@app.command()
def show(key_id: KeyId, *, url: Url = None, json: Json = False) -> None:
    """Show a key, without its secret."""
    if url is not None:
        _print_key(_remote(url, "GET", f"/{quote(key_id, safe='')}"), json=json)
        return
    _print_key(_members(run(_get(settings_or_fail(), key_id))), json=json)


@app.command()
def rotate(
    key_id: KeyId,
    *,
    overlap_hours: Annotated[
        float, typer.Option(min=0, help="How long the secret before holds; 0 ends it at once.")
    ] = OVERLAP_S / 3600,
    expires_in_days: Days = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """Give a key a new secret; the one before holds for the overlap."""
    wish = RotateKey(overlap_s=int(overlap_hours * 3600), expires_in_s=_seconds(expires_in_days))
    if url is not None:
        members = {"overlap_s": wish.overlap_s, "expires_in_s": wish.expires_in_s}
        _print_issued(_remote(url, "POST", f"/{quote(key_id, safe='')}/rotate", members), json=json)
        return
    _print_issued(_issued_members(run(_rotate(settings_or_fail(), key_id, wish))), json=json)


@app.command()
def revoke(
    key_id: KeyId,
    *,
    reason: Annotated[str | None, typer.Option(help="Why, for the log.")] = None,
    url: Url = None,
    json: Json = False,
) -> None:
    """End a key for good; running servers know it within a second."""
    if url is not None:
        _print_key(_remote(url, "POST", f"/{quote(key_id, safe='')}/revoke", {"reason": reason}), json=json)
        return
    _print_key(_members(run(_revoke(settings_or_fail(), key_id, reason))), json=json)


async def _create(settings: Settings, grant: KeyGrant, expires_in_days: float | None) -> Issued:
    bring_up_to_date(settings)
    with failing():
        await ensure_any_log(settings.database, RandomIds())
    async with _opened(settings) as (keys, _):
        expires_in_s = _seconds(expires_in_days)
        if expires_in_s is not None:
            grant = replace(grant, expires_at_us=keys.now_us() + expires_in_s * US_PER_S)
        return await keys.create(_operator(grant.tenant), grant)


async def _all(settings: Settings) -> list[KeyState]:
    async with _opened(settings) as (_, table):
        return await table.all()


async def _get(settings: Settings, key_id: str) -> KeyState:
    async with _opened(settings) as (keys, table):
        return await keys.get(await _operator_of(table, key_id), key_id)


async def _rotate(settings: Settings, key_id: str, wish: RotateKey) -> Issued:
    async with _opened(settings) as (keys, table):
        return await keys.rotate(await _operator_of(table, key_id), key_id, wish)


async def _revoke(settings: Settings, key_id: str, reason: str | None) -> KeyState:
    async with _opened(settings) as (keys, table):
        return await keys.revoke(await _operator_of(table, key_id), key_id, reason=reason)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncGenerator[tuple[ManageKeys, KeyTable], None]:
    try:
        secrets = HmacKeySecrets(AccessSecret.of_folder(settings.keys_folder))
    except AccessSecretUnusable as error:
        fail(str(error))
    async with opened_store(settings) as store:
        table = KeyTable(store)
        yield ManageKeys(store=store, table=table, secrets=secrets, clock=SystemClock(), ids=RandomIds()), table


def _operator(tenant: str) -> Principal:
    """Whoever can write the database manages every tenant's keys."""
    return replace(LOCAL_OPERATOR, tenant=tenant)


async def _operator_of(table: KeyTable, key_id: str) -> Principal:
    state = await table.get(key_id)
    return LOCAL_OPERATOR if state is None else _operator(state.grant.tenant)


def _remote(url: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    with connected(url) as client:
        more: dict[str, Any] = {} if body is None else {"json": body}
        return ask(client, method, f"/v1/keys{path}", **more)


def _remote_list(url: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    with connected(url) as client:
        while True:
            after = {"after": found[-1]["id"]} if found else {}
            page = ask(client, "GET", "/v1/keys", params={"limit": PAGE, **after})
            found += page["data"]
            if not page["has_more"]:
                return found


def _body(grant: KeyGrant, expires_in_days: float | None) -> dict[str, Any]:
    limits = grant.limits
    return {
        "name": grant.name,
        "subject": grant.subject,
        "scopes": list(grant.scopes),
        "models": None if grant.models is None else list(grant.models),
        "default_model": grant.default_model,
        "fallback_models": list(grant.fallback_models),
        "limits": None if limits is None else {name: getattr(limits, name) for name in limits.__dataclass_fields__},
        "expires_in_s": _seconds(expires_in_days),
    }


def _seconds(days: float | None) -> int | None:
    return None if days is None else max(1, int(days * S_PER_DAY))


def _members(state: KeyState) -> dict[str, Any]:
    members = key_members(state, SystemClock().now_us())
    limits = members["limits"]
    return {**members, "limits": None if limits is None else limits.model_dump()}


def _issued_members(issued: Issued) -> dict[str, Any]:
    return {**_members(issued.key), "key": issued.secret.text}


def _print_issued(found: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(found)
        return
    out.print(literal(found["key"]), soft_wrap=True)
    out.print(
        literal(f"Key {found['id']} of {found['tenant']}/{found['subject']}: {' '.join(found['scopes'])}."),
        "It is shown this once; keep it as a password.",
    )


def _print_key(found: dict[str, Any], *, json: bool) -> None:
    if json:
        print_json(found)
        return
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        if value is not None and name != "object":
            table.add_row(name, literal(" ".join(value) if isinstance(value, list) else value))
    out.print(table)


def register(root: typer.Typer) -> None:
    """Add what this file has to the command line."""
    root.add_typer(app, name="keys")
