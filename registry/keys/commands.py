"""`macrofleet keys …`: API keys, made and revoked in the control plane's database and published to the store.

Nothing but typer is imported before a command runs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from registry.console_output import configured_operator_key, open_configured_store, print_json, print_table

if TYPE_CHECKING:
    from registry.errors import MacrofleetError
    from registry.keys.book import KeyBook, KeyRecord
    from registry.keys.published import Scope
    from registry.keys.publishing import Publication

keys = typer.Typer(no_args_is_help=True, help="API keys: who may ask which tenant's server for what.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Expires = Annotated[
    str | None, typer.Option(metavar="TIME", help="After which it is no key any more: 90d, 12h, 30m. By default never.")
]
_TIME = re.compile(r"([0-9]{1,7})([dhms])")
_UNITS = {"d": 86_400, "h": 3600, "m": 60, "s": 1}


@keys.command("create")
def create(
    tenant: Annotated[str | None, typer.Option("--tenant", help="Whose it is; left out for an operator's.")] = None,
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope", help="suggest, feedback, tenant-admin or operator. Repeatable; by default suggest and feedback."
        ),
    ] = None,
    expires: Expires = None,
    note: Annotated[str, typer.Option(help="What it is for; shown in lists.")] = "",
    published: Annotated[
        bool,
        typer.Option(
            "--publish/--no-publish", help="Of many that are made one after the other, publish once: `keys publish`."
        ),
    ] = True,
    as_json: Json = False,
) -> None:
    """Make a key, publish it, and print it: once, on standard output. Nobody can show it again.

    Examples: macrofleet keys create --tenant acme --expires 90d --note "help desk"

    macrofleet keys create --scope operator > operator.key
    """
    wanted = _scopes(scope or (["suggest", "feedback"] if tenant else ["operator"]))
    lifetime = None if expires is None else _seconds(expires)
    with _key_book() as book:
        key, record = book.create(tenant, wanted, lifetime_seconds=lifetime, note=note)
        _print_new(book, key, record, as_json, published=published)


@keys.command("list")
def list_keys(
    tenant: Annotated[str | None, typer.Option("--tenant", help="This tenant's alone.")] = None,
    all_of_them: Annotated[bool, typer.Option("--all", help="Those, too, that are revoked or expired.")] = False,
    as_json: Json = False,
) -> None:
    """Which keys there are, by prefix; the keys themselves are known to nobody.

    Example: macrofleet keys list --tenant acme --all
    """
    from registry.keys.publishing import is_published

    now = time.time()
    with _key_book() as book:
        found = [each for each in book.records(tenant=tenant) if all_of_them or each.state(now) == "valid"]
        published = is_published(book, open_configured_store())
    if as_json:
        print_json({"published": published, "keys": [_row(each, now) for each in found]})
        return
    columns = ["prefix", "tenant", "scopes", "state", "created", "expires", "replaced by", "note"]
    rows = [_row(each, now) for each in found]
    names = ("prefix", "tenant", "scopes", "state", "created_at", "expires_at", "replaced_by", "note")
    print_table(columns, [[_cell(row[name]) for name in names] for row in rows])
    if not published:
        typer.echo("what servers know is older than this: macrofleet keys publish", err=True)


@keys.command("rotate")
def rotate(
    prefix: Annotated[str, typer.Argument(help="Of the key to replace, as lists show it.")],
    overlap: Annotated[
        str, typer.Option(metavar="TIME", help="How long both hold: 7d, 12h; 0s revokes the old one at once.")
    ] = "7d",
    expires: Annotated[
        str | None, typer.Option(metavar="TIME", help="Of the new one; by default as long as the old one was given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a key in the place of another one, which goes on for a while, and print it once.

    Example: macrofleet keys rotate 3f9a0c71be --overlap 7d
    """
    overlap_seconds, lifetime = _seconds(overlap), None if expires is None else _seconds(expires)
    with _key_book() as book:
        key, record = book.rotate(prefix, overlap_seconds=overlap_seconds, lifetime_seconds=lifetime)
        _print_new(book, key, record, as_json)


@keys.command("revoke")
def revoke(
    prefixes: Annotated[list[str] | None, typer.Argument(metavar="[PREFIX…]", help="Which keys.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="All keys of a tenant.")] = None,
    as_json: Json = False,
) -> None:
    """Take keys back for ever. Servers refuse them at their next poll, or at once after `macrofleet keys publish URL`.

    Example: macrofleet keys revoke 3f9a0c71be
    """
    from registry.errors import InvalidInput
    from registry.keys.publishing import publish_keys

    if not prefixes and tenant is None:
        raise InvalidInput("no key was named", remedy="Give prefixes, or --tenant.")
    with _key_book() as book:
        revoked = book.revoke(prefixes or [], tenant=tenant)
        publication = publish_keys(book, open_configured_store())
    if as_json:
        now = time.time()
        print_json({**_published(publication), "revoked": [_row(each, now) for each in revoked]})
        return
    for each in revoked:
        typer.echo(f"revoked {each.prefix} ({each.tenant or 'operator'})")
    if not revoked:
        typer.echo("there was no key to revoke")


@keys.command("publish")
def publish(
    urls: Annotated[
        list[str] | None,
        typer.Argument(metavar="[URL…]", help="Operator addresses of servers that shall read them now."),
    ] = None,
    force: Annotated[
        bool,
        typer.Option("--force", help="Replace keys that another database published, or a later state of this one."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Write to the store what the database says, where a command before was kept from it. Safe to repeat.

    Servers that are named read the keys now instead of at their next poll, and are asked with MACROFLEET_OPERATOR_KEY. Exit
    code 1 if one of them did not.

    Example: macrofleet keys publish http://127.0.0.1:8001
    """
    from registry.keys.publishing import publish_keys
    from registry.replicas import refresh_replicas

    with _key_book() as book:
        publication = publish_keys(book, open_configured_store(), force=force)
    answers = refresh_replicas(urls, what="access", key=configured_operator_key()) if urls else []
    if as_json:
        rows = [{"url": one.url, "generation": one.generation, "problem": one.problem} for one in answers]
        print_json({**_published(publication), "replicas": rows})
    else:
        state = "written" if publication.written else "there already"
        typer.echo(f"generation {publication.generation}, {publication.keys} keys: {state}")
        for one in answers:
            typer.echo(f"{one.url}: {one.problem or f'generation {one.generation}'}", err=one.problem is not None)
    if any(one.problem is not None for one in answers):
        raise typer.Exit(1)


@contextmanager
def _key_book() -> Iterator[KeyBook]:
    from registry.database import DatabaseSettings, opened_database
    from registry.keys.book import KeyBook
    from registry.settings import read_settings

    with opened_database(read_settings(DatabaseSettings)) as database:
        yield KeyBook(database)


def _print_new(book: KeyBook, key: str, record: KeyRecord, as_json: bool, *, published: bool = True) -> None:
    """Publish a key that was made, and print it even where that fails: nobody else has it."""
    from registry.errors import MacrofleetError
    from registry.keys.publishing import publish_keys

    problem: MacrofleetError | None = None
    publication: Publication | None = None
    if published:
        try:
            publication = publish_keys(book, open_configured_store())
        except MacrofleetError as error:
            problem = error
    if as_json:
        told = {"published": False} if publication is None else _published(publication)
        print_json({"key": key, **_row(record, time.time()), **told})
    else:
        typer.echo(key)
        whose = record.tenant or "all tenants"
        until = "" if record.expires_at is None else f", until {_instant(record.expires_at)}"
        typer.echo(
            f"key {record.prefix} for {whose}: {', '.join(record.scopes)}{until}; it is not shown again", err=True
        )
    if publication is None:
        typer.echo(f"key {record.prefix} is made, and no server knows it yet: macrofleet keys publish", err=True)
    if problem is not None:
        raise problem


def _published(publication: Publication) -> dict[str, Any]:
    return {"published": True, "generation": publication.generation}


def _row(record: KeyRecord, now: float) -> dict[str, Any]:
    return {
        "prefix": record.prefix,
        "tenant": record.tenant,
        "scopes": list(record.scopes),
        "state": record.state(now),
        "created_at": _instant(record.created_at),
        "expires_at": None if record.expires_at is None else _instant(record.expires_at),
        "revoked_at": None if record.revoked_at is None else _instant(record.revoked_at),
        "replaced_by": record.replaced_by,
        "note": record.note,
    }


def _cell(value: str | list[str] | None) -> str:
    return ",".join(value) if isinstance(value, list) else value or "-"


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _scopes(names: list[str]) -> list[Scope]:
    from registry.errors import InvalidInput
    from registry.keys.published import SCOPES

    known = {str(scope): scope for scope in SCOPES}
    if unknown := [name for name in names if name not in known]:
        raise InvalidInput(f"{unknown[0][:80]!r} is no scope", remedy=f"There are {', '.join(known)}.")
    return [known[name] for name in names]


def _seconds(text: str) -> float:
    from registry.errors import InvalidInput

    found = _TIME.fullmatch(text)
    if not found:
        raise InvalidInput(f"{text[:80]!r} is no time", remedy="Write 90d, 12h, 30m or 45s.")
    return float(found[1]) * _UNITS[found[2]]
