"""``manage.py balance_credit``: give an organization an amount, or take one back."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any
from uuid import UUID

from billing.money import nano_of_usd, usd
from billing.selectors import balance_of
from billing.services import balance_credit
from controlplane.management.plain import PlainCommand
from kernel.errors import NotFound
from kernel.ids import ulid
from tenants.access import Caller
from tenants.models import Organization
from tenants.scope import organization_scope, platform_scope


class Command(PlainCommand):
    help = (
        "Add an amount in dollars to an organization's balance; below zero takes it back "
        "(write `-- -5`). Gateways know of it within seconds."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("organization", help="its short name or id")
        parser.add_argument("amount", metavar="USD")
        parser.add_argument("--reason", required=True)
        parser.add_argument(
            "--operation",
            default="",
            help="what names this, such as a payment's id: the same again changes nothing",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        organization = _organization(options["organization"])
        entry = balance_credit(
            organization.id,
            caller=Caller.system("balance_credit"),
            nano=nano_of_usd(options["amount"]),
            reason=options["reason"],
            operation=options["operation"] or f"command:{ulid()}",
        )
        with organization_scope(organization.id):
            left = balance_of(organization.id).balance_nano
        self.say(
            f"{organization.slug}: {usd(entry.nano)} USD as entry {entry.id}; "
            f"the balance is {usd(left)} USD."
        )


def _organization(named: str) -> Organization:
    try:
        wanted: dict[str, Any] = {"id": UUID(named)}
    except ValueError:
        wanted = {"slug": named}
    with platform_scope():
        found = Organization.objects.filter(**wanted).first()
    if found is None:
        raise NotFound(f"There is no organization {named[:40]!r}.")
    return found
