"""Organizations, the people in them, their keys and limits, and the record of who did what."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower

from kernel.ids import uuid7

MOST_NANO = 2**53 - 1  # admission adds in Lua, whose numbers are exact up to here
MOST_WEIGHT = 1_000


class UserManager(BaseUserManager["User"]):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """A person; without a password nobody can sign in until one is set by mail."""
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> User:
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email__iexact=username)


class User(AbstractBaseUser, PermissionsMixin):
    """A person who signs in by e-mail address. What they may do is in their memberships."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField("e-mail address", max_length=254, unique=True)
    name = models.CharField(max_length=150, blank=True)
    is_staff = models.BooleanField("operator", default=False, help_text="May use the admin site.")
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()

    class Meta:
        constraints = [
            models.UniqueConstraint(Lower("email"), name="user_email_unique_ignoring_case"),
        ]

    def __str__(self) -> str:
        return self.email


class Tier(models.TextChoices):
    """Whose waiting calls go first when a pool is full."""

    PREMIUM = "premium"
    STANDARD = "standard"
    FREE = "free"


class Billing(models.TextChoices):
    """Paying first: never more is spent than was credited. Afterwards: a monthly limit, softly."""

    PREPAID = "prepaid"
    POSTPAID = "postpaid"


class Plan(models.Model):
    """What an organization gets unless a quota of its own says otherwise."""

    code = models.SlugField(max_length=40, unique=True)
    name = models.CharField(max_length=80)
    requests_per_minute = models.PositiveBigIntegerField()
    tokens_per_minute = models.PositiveBigIntegerField()
    concurrency = models.PositiveIntegerField()
    storage_bytes = models.PositiveBigIntegerField()
    tier = models.CharField(
        max_length=16,
        choices=Tier.choices,
        default=Tier.STANDARD,
        db_default=Tier.STANDARD,
        help_text="Whose waiting calls go first when a pool is full.",
    )
    weight = models.PositiveSmallIntegerField(
        default=1,
        db_default=1,
        help_text="The share of a full pool's tokens beside others of the tier: twice the weight,"
        " twice the tokens.",
    )
    billing = models.CharField(
        max_length=16,
        choices=Billing.choices,
        default=Billing.POSTPAID,
        db_default=Billing.POSTPAID,
        help_text="How organizations pay that say nothing of their own.",
    )

    class Meta:
        ordering = ["code"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(tier__in=Tier.values), name="plan_tier_is_known"
            ),
            models.CheckConstraint(
                condition=models.Q(weight__gte=1, weight__lte=MOST_WEIGHT),
                name="plan_weight_1_to_1000",
            ),
            models.CheckConstraint(
                condition=models.Q(billing__in=Billing.values), name="plan_billing_is_known"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Organization(models.Model):
    """A tenant. ``version`` grows with every change that matters to its keys."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40)
    plan = models.ForeignKey(Plan, on_delete=models.PROTECT, related_name="organizations")
    billing = models.CharField(
        max_length=16,
        choices=Billing.choices,
        blank=True,
        default="",
        db_default="",
        help_text="Empty: as the plan.",
    )
    suspended_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveBigIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(fields=["slug"], name="organization_slug_unique"),
            models.CheckConstraint(
                condition=models.Q(billing__in=["", *Billing.values]),
                name="organization_billing_is_known",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def billing_mode(self) -> Billing:
        """How it pays: as it says itself, else as its plan says."""
        return Billing(self.billing or self.plan.billing)


class Project(models.Model):
    """A part of an organization with keys and models of its own."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="projects"
    )
    name = models.CharField(max_length=80)
    slug = models.SlugField(max_length=40)
    version = models.PositiveBigIntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["slug"]
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "slug"], name="project_slug_unique_in_organization"
            ),
        ]

    def __str__(self) -> str:
        return self.name


class OwnLimits(models.Model):
    """Limits of one bearer's own; every bearer that a call passes holds it to its own.

    ``budget_nano`` is nano-USD in a calendar month (UTC): hard for a project and a key, soft for an
    organization that pays afterwards, and without effect for one that pays first.
    """

    requests_per_minute = models.PositiveBigIntegerField(null=True, blank=True)
    tokens_per_minute = models.PositiveBigIntegerField(null=True, blank=True)
    concurrency = models.PositiveIntegerField(null=True, blank=True)
    budget_nano = models.PositiveBigIntegerField(
        "monthly budget, nano-USD", null=True, blank=True, help_text="A billionth of a dollar each."
    )

    class Meta:
        abstract = True


class Quota(OwnLimits):
    """Limits of an organization that differ from its plan, or of one of its projects. Empty means
    for an organization: as the plan; for a project: only the organization's count.
    """

    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="quotas")
    project = models.ForeignKey(
        Project, on_delete=models.PROTECT, related_name="quotas", null=True, blank=True
    )
    storage_bytes = models.PositiveBigIntegerField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "project"],
                name="quota_unique_in_organization_and_project",
                nulls_distinct=False,
            ),
            models.CheckConstraint(
                condition=models.Q(budget_nano__lte=MOST_NANO), name="quota_budget_is_exact"
            ),
        ]

    def __str__(self) -> str:
        return f"Quota of {self.project or self.organization}"


class Role(models.TextChoices):
    OWNER = "owner"
    ADMIN = "admin"
    DEVELOPER = "developer"
    BILLING = "billing"
    VIEWER = "viewer"


class Membership(models.Model):
    """One person's role in one organization."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="memberships"
    )
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=16, choices=Role.choices)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(
                fields=["organization", "user"], name="membership_unique_in_organization"
            ),
            models.CheckConstraint(
                condition=models.Q(role__in=Role.values), name="membership_role_is_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"


class Scope(models.TextChoices):
    """What a key may be used for."""

    INFERENCE = "inference", "Inference"
    MANAGE = "manage", "Management API"
    USAGE_READ = "usage:read", "Read usage"


class KeyEnvironment(models.TextChoices):
    LIVE = "live"
    TEST = "test"


class ApiKey(OwnLimits):
    """A key as we keep it: never the key itself. ``version`` grows with every change."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(Organization, on_delete=models.PROTECT, related_name="keys")
    project = models.ForeignKey(Project, on_delete=models.PROTECT, related_name="keys")
    name = models.CharField(max_length=80)
    environment = models.CharField(max_length=4, choices=KeyEnvironment.choices)
    mac = models.BinaryField(max_length=32, unique=True, editable=False)
    pepper_version = models.PositiveSmallIntegerField(default=1, editable=False)
    last4 = models.CharField(max_length=4, editable=False)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope.choices))
    created_by = models.ForeignKey(
        User, on_delete=models.SET_NULL, null=True, blank=True, related_name="created_keys"
    )
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    version = models.PositiveBigIntegerField(default=1, editable=False)
    # Last, because from here on the name means the field.
    models = ArrayField(
        models.CharField(max_length=80),
        default=list,
        blank=True,
        help_text="Names of the models this key may call; empty means all.",
    )

    class Meta:
        ordering = ["-id"]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(environment__in=KeyEnvironment.values),
                name="key_environment_is_known",
            ),
            models.CheckConstraint(
                condition=models.Q(scopes__contained_by=Scope.values, scopes__len__gt=0),
                name="key_scopes_are_known",
            ),
            models.CheckConstraint(
                condition=models.Q(budget_nano__lte=MOST_NANO), name="key_budget_is_exact"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} (...{self.last4})"

    def is_active(self, now: datetime) -> bool:
        """Whether the key itself may be used; its organization may still be suspended."""
        return self.revoked_at is None and (self.expires_at is None or self.expires_at > now)


class AuditEvent(models.Model):
    """Who did what to what. Written in the same transaction as the change; never changed
    afterwards.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    organization = models.ForeignKey(
        Organization, on_delete=models.PROTECT, related_name="audit_events", null=True
    )
    actor_type = models.CharField(max_length=16)
    actor_id = models.CharField(max_length=64)
    actor_label = models.CharField(max_length=254)
    verb = models.CharField(max_length=64)
    target_type = models.CharField(max_length=64)
    target_id = models.CharField(max_length=64)
    address = models.GenericIPAddressField(null=True)
    detail = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]
        indexes = [models.Index(fields=["organization", "-id"], name="audit_by_organization")]

    def __str__(self) -> str:
        return f"{self.actor_label} {self.verb} {self.target_type}"
