"""What was metered, written by the shipper alone; what it costs and what is paid, written by
operators. Rows are only ever added.
"""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from kernel.ids import uuid7

MAX_NANO = 2**53 - 1
"""No amount passes this: Redis' Lua and JavaScript count exactly up to here."""

MAX_NANO_PER_TOKEN = 10**9
"""One dollar: a call of a million tokens stays far below ``MAX_NANO``."""


class UsageEvent(models.Model):
    """One usage fact (``kernel.usage.UsageFact``), only ever added; a correction is another row.

    Ids are plain: usage outlives the key, the project and the deployment that caused it. The table
    is partitioned by month of ``occurred_at`` and its real key is ``(occurred_at, event_id)``;
    event ids are unique by construction, so that ``event_id`` serves as the key here.
    """

    event_id = models.CharField(primary_key=True)
    occurred_at = models.DateTimeField()
    fact_hash = models.CharField()
    organization_id = models.UUIDField()
    project_id = models.UUIDField()
    key_id = models.UUIDField()
    deployment_id = models.UUIDField()
    version_id = models.UUIDField()
    input_tokens = models.BigIntegerField()
    cached_input_tokens = models.BigIntegerField(help_text="The part of the input read from cache.")
    output_tokens = models.BigIntegerField()
    other_quantities = models.JSONField(default=dict)
    kind = models.CharField()
    completeness = models.CharField()
    billable = models.BooleanField()
    model = models.CharField()
    rollout = models.CharField(null=True)
    arm = models.CharField(null=True)
    pool = models.CharField()
    replica = models.CharField()
    incarnation = models.CharField()
    cluster = models.CharField()
    tier = models.CharField()
    finish_reason = models.CharField()
    price_version = models.CharField(null=True)
    schema_version = models.IntegerField()
    cost_nano = models.BigIntegerField("cost, nano-USD", db_default=0)
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "usage_event"
        ordering = ["-occurred_at", "-event_id"]

    def __str__(self) -> str:
        return self.event_id


class UsageQuarantine(models.Model):
    """A fact that could not become a row: an operator looks at it, nothing is dropped."""

    class Reason(models.TextChoices):
        CONFLICT = "conflict", "Another fact has the same identity"
        SHAPE = "shape", "No row can hold it"
        DATABASE = "database", "The database refused it"

    reason = models.CharField(choices=Reason.choices)
    detail = models.TextField()
    fact_hash = models.CharField()
    fact = models.TextField()
    event_id = models.CharField(blank=True)
    occurred_at = models.DateTimeField(null=True, blank=True)
    received_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "usage_quarantine"
        ordering = ["-id"]
        verbose_name_plural = "usage quarantine"
        constraints = [
            models.UniqueConstraint(
                fields=["fact_hash", "reason"], name="usage_quarantine_once_per_reason"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.reason} {self.event_id}"


class JournalPosition(models.Model):
    """A writer: everything it wrote before this place is in ``usage_event`` or in quarantine.

    ``closed_at``: it is dead, and nothing of it follows; who waits for it goes on. An operator says
    so (``written_off_*``) where its disk is lost. ``seen_at``, ``is_living`` and ``held_because``
    are what its node's shipper last said.
    """

    writer = models.CharField(primary_key=True)
    segment = models.BigIntegerField()
    offset = models.BigIntegerField()
    closed_at = models.DateTimeField(null=True, blank=True)
    updated_at = models.DateTimeField(db_default=Now())
    seen_at = models.DateTimeField(null=True, blank=True)
    is_living = models.BooleanField(default=False, db_default=False)
    held_because = models.CharField(blank=True, default="", db_default="")
    written_off_at = models.DateTimeField(null=True, blank=True)
    written_off_by = models.CharField(blank=True, default="", db_default="")
    written_off_reason = models.CharField(blank=True, default="", db_default="")

    class Meta:
        db_table = "journal_position"
        ordering = ["-updated_at"]

    def __str__(self) -> str:
        return f"{self.writer} {self.segment}:{self.offset}"


class Price(models.Model):
    """What a token of each class costs on one base model, in nano-USD, from one instant on.

    A row is a version: ``id`` is what usage carries as its ``price_version``. Nothing is changed; a
    correction is another row. ``base`` is the slug of a base model of the serving room.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    base = models.CharField("base model", max_length=40)
    input_nano = models.BigIntegerField("input, nano-USD per token")
    cached_input_nano = models.BigIntegerField("cached input, nano-USD per token")
    output_nano = models.BigIntegerField("output, nano-USD per token")
    effective_from = models.DateTimeField()
    created_by = models.CharField(max_length=254)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "price"
        ordering = ["base", "-effective_from", "-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(
                    input_nano__range=(0, MAX_NANO_PER_TOKEN),
                    cached_input_nano__range=(0, MAX_NANO_PER_TOKEN),
                    output_nano__range=(0, MAX_NANO_PER_TOKEN),
                ),
                name="price_is_a_rate",
            ),
        ]
        indexes = [models.Index(fields=["base", "-effective_from", "-id"], name="price_by_base")]

    def __str__(self) -> str:
        return f"{self.base} from {self.effective_from:%Y-%m-%d %H:%M}"


class IdempotencyKey(models.Model):
    """Which request a key stands for, for a day. Gateways write it, through functions alone; the
    hashes are theirs and tell neither the key nor the body.
    """

    key_hash = models.BinaryField(primary_key=True)
    body_hash = models.BinaryField()
    event_id = models.CharField()
    organization_id = models.UUIDField()
    project_id = models.UUIDField()
    claimed_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "idempotency_key"
        indexes = [models.Index(fields=["claimed_at"], name="idempotency_key_by_age")]

    def __str__(self) -> str:
        return self.event_id


class BalanceEntry(models.Model):
    """An amount that an organization was given, or that was taken back. Only ever added.

    Of one organization, a higher ``id`` was committed later. ``operation`` names what was done: the
    same again changes nothing.
    """

    id = models.BigAutoField(primary_key=True)
    organization = models.ForeignKey(
        "tenants.Organization", on_delete=models.PROTECT, related_name="balance_entries"
    )
    nano = models.BigIntegerField("amount, nano-USD")
    reason = models.CharField(max_length=200)
    actor = models.CharField(max_length=254)
    operation = models.CharField(max_length=100)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "balance_entry"
        ordering = ["-id"]
        verbose_name_plural = "balance entries"
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "operation"], name="balance_operation_once"
            ),
            models.CheckConstraint(
                condition=models.Q(nano__range=(-MAX_NANO, MAX_NANO)),
                name="balance_entry_is_an_amount",
            ),
        ]
        indexes = [models.Index(fields=["organization", "id"], name="balance_by_organization")]

    def __str__(self) -> str:
        return f"{self.nano} nano-USD: {self.reason}"


class WriterSpend(models.Model):
    """What one gateway process's events came to on one account (``kernel.usage``); only grows.

    The shipper raises it in the transaction that adds the events, so that both always agree.
    """

    pk = models.CompositePrimaryKey("writer", "account")
    writer = models.CharField()
    account = models.CharField()
    organization_id = models.UUIDField()
    nano = models.BigIntegerField()

    class Meta:
        db_table = "writer_spend"
        indexes = [
            models.Index(
                fields=["account"], include=("writer", "nano"), name="writer_spend_by_account"
            )
        ]

    def __str__(self) -> str:
        return f"{self.writer} {self.account}"


class GatewayRoster(models.Model):
    """A gateway process that may hold prepaid money, entered before it first does."""

    writer = models.CharField(primary_key=True)
    cell = models.CharField()
    node = models.CharField()
    entered_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "gateway_roster"
        ordering = ["-entered_at"]
        verbose_name_plural = "gateway roster"
        indexes = [models.Index(fields=["cell"], name="gateway_roster_by_cell")]

    def __str__(self) -> str:
        return self.writer
