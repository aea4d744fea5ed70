"""A small Zendesk account over HTTP, and a run against it without waits."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import stamina

from benchmarks.zendesk_server import EMAIL, TOKEN, Account, ZendeskServer, add_ticket, macro
from registry.store import ObjectStore
from training.connectors.client import HelpDesk
from training.connectors.pace import Pace
from training.connectors.zendesk import credentials
from training.connectors.zendesk_sync import Step, SyncOptions, SyncReport, ZendeskSync

AGENT, JANE = 501, 9001
START = 1_790_000_000
NOW = 1_800_000_000


def comment(body: str, author: int, *, public: bool = True) -> dict[str, Any]:
    return {"type": "Comment", "author_id": author, "public": public, "body": body}


def used(number: int, **fields: Any) -> dict[str, Any]:
    """That a macro was applied."""
    return {
        "type": "AgentMacroReference",
        "macro_id": str(360_000_000 + number),
        "macro_title": f"Shipping::Answer {number}",
    } | fields


def plain_ticket(account: Account, number: int, *, macro_number: int = 1, **fields: Any) -> None:
    """A customer's question, an agent's macro, the customer's thanks."""
    updates = [
        (
            JANE,
            [
                {"type": "Create", "field_name": "subject", "value": f"Parcel {number}"},
                comment(f"Where is {number}?", JANE),
            ],
        ),
        (AGENT, [used(macro_number), comment("It is on its way.", AGENT)]),
        (JANE, [comment("Thanks!", JANE)]),
    ]
    add_ticket(account, number, START + 1000 * number, JANE, updates, **fields)


def small_account(tickets: int = 5) -> Account:
    account = Account(macros=[macro(1), macro(2), macro(3, active=False)], export_page=2)
    for number in range(1, tickets + 1):
        plain_ticket(account, number, macro_number=1 + number % 2)
    return account


@contextmanager
def desk_of(server: ZendeskServer) -> Iterator[HelpDesk]:
    with HelpDesk(server.url, credentials(TOKEN, EMAIL), first_wait_seconds=0.001) as desk:
        yield desk


def synced(
    store: ObjectStore,
    server: ZendeskServer,
    *,
    account: str = "shop",
    step: Step = lambda _text, _share: None,
    **options: Any,
) -> SyncReport:
    """One whole run for the tenant `acme`."""
    given = SyncOptions(**{"since": 0, "rate": 0, "threads": 2, **options})
    with desk_of(server) as desk, stamina.set_testing(True, attempts=6, cap=True):
        sync = ZendeskSync(
            store, "acme", desk, account=account, options=given, exports=Pace(None), step=step, clock=lambda: NOW,
        )  # fmt: skip
        return sync.run()
