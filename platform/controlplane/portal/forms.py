"""What people fill in. Forms parse; the services they feed decide."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from django import forms
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from billing.money import nano_of_usd, usd
from kernel.errors import DomainError
from serving.models import BaseModel
from tenants.access import Caller
from tenants.models import KeyEnvironment, OwnLimits, Project, Role, Scope
from tenants.services.keys import ROTATION_OVERLAP

_EXPIRIES = (
    ("", _("Never")),
    ("7", _("In 7 days")),
    ("30", _("In 30 days")),
    ("90", _("In 90 days")),
    ("365", _("In a year")),
)
_OVERLAPS = (
    (str(int(ROTATION_OVERLAP.total_seconds())), _("24 hours: time to change your applications")),
    (str(7 * 24 * 3600), _("7 days")),
    ("0", _("Not at all: the old key leaked")),
)
_SCOPE_LABELS = {
    Scope.INFERENCE: _("Inference: call models"),
    Scope.USAGE_READ: _("Usage: read what was used"),
    Scope.MANAGE: _("Management: the REST API, with everything but people"),
}


class KeyForm(forms.Form):
    """A new key. Only the scopes that the caller may pass on are offered."""

    name = forms.CharField(label=_("Name"), max_length=80, initial=_("My key"))
    project = forms.ChoiceField(label=_("Project"))
    scopes = forms.MultipleChoiceField(label=_("Scopes"), widget=forms.CheckboxSelectMultiple)
    environment = forms.ChoiceField(
        label=_("Environment"),
        choices=[(KeyEnvironment.LIVE.value, _("Live")), (KeyEnvironment.TEST.value, _("Test"))],
        help_text=_("Shows in the key itself: tsr_live_… or tsr_test_…"),
    )
    models = forms.MultipleChoiceField(
        label=_("Models"),
        required=False,
        widget=forms.CheckboxSelectMultiple,
        help_text=_("None ticked means every model, also those that come later."),
    )
    expires = forms.ChoiceField(label=_("Expires"), choices=_EXPIRIES, required=False)

    def __init__(
        self,
        *args: Any,
        caller: Caller,
        projects: Iterable[Project],
        models: Iterable[str],
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        offered = [(scope.value, _SCOPE_LABELS[scope]) for scope in Scope if scope in caller.scopes]
        _choose_from(self, "scopes", offered)
        _choose_from(self, "project", [(str(project.id), project.name) for project in projects])
        named = [(model, model) for model in models]
        _choose_from(self, "models", named)
        if not named:
            del self.fields["models"]
        self.fields["scopes"].initial = [Scope.INFERENCE.value]

    def expires_at(self) -> datetime | None:
        days = self.cleaned_data["expires"]
        return timezone.now() + timedelta(days=int(days)) if days else None


class RotateForm(forms.Form):
    overlap_seconds = forms.TypedChoiceField(
        label=_("The old key goes on working for"), choices=_OVERLAPS, coerce=int
    )


class OrganizationForm(forms.Form):
    """A new organization; without a short name it gets one from its name."""

    name = forms.CharField(label=_("Name"), max_length=80)
    slug = forms.SlugField(
        label=_("Short name"),
        max_length=40,
        required=False,
        help_text=_("Stands in addresses; cannot be changed. Lower-case letters, digits, hyphens."),
    )


class UploadForm(forms.Form):
    """What an upload is called and based on; its files travel through the REST API."""

    name = forms.CharField(label=_("Name"), max_length=80, initial=_("my-adapter"))
    base = forms.ChoiceField(label=_("Base model"))
    project = forms.ChoiceField(label=_("Project"))

    def __init__(
        self, *args: Any, bases: Iterable[BaseModel], projects: Iterable[Project], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        _choose_from(self, "base", [(base.slug, base.name) for base in bases])
        _choose_from(self, "project", [(project.slug, project.name) for project in projects])


class DeploymentForm(forms.Form):
    """Which model, and the name that applications call. ``choices`` are grouped for the list."""

    model = forms.ChoiceField(label=_("Model"))
    slug = forms.SlugField(
        label=_("Name in the API"),
        max_length=40,
        help_text=_("Lower-case letters, digits and hyphens; unique in your organization."),
    )

    def __init__(
        self, *args: Any, choices: list[tuple[Any, list[tuple[str, str]]]], **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.has_choices = bool(choices)
        _choose_from(self, "model", choices)


class MemberForm(forms.Form):
    """Somebody new, by e-mail address, with one of the roles that the caller may give."""

    email = forms.EmailField(label=_("E-mail address"))
    role = forms.ChoiceField(label=_("Role"), initial=Role.DEVELOPER.value)

    def __init__(self, *args: Any, caller: Caller, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choose_from(self, "role", role_choices(caller))


class LimitsForm(forms.Form):
    """Limits of a project's or key's own; a field left empty means none of its own."""

    requests_per_minute = forms.IntegerField(label=_("Requests a minute"), required=False)
    tokens_per_minute = forms.IntegerField(
        label=_("Tokens a minute"),
        required=False,
        help_text=_("A call takes the most it may use, and gives back what it did not."),
    )
    concurrency = forms.IntegerField(label=_("Calls at a time"), required=False)
    budget_nano = forms.CharField(
        label=_("Monthly budget in US dollars"),
        required=False,
        max_length=24,
        widget=forms.TextInput(attrs={"inputmode": "decimal", "placeholder": "250.00"}),
        help_text=_("Never overrun. Months begin and end in UTC."),
    )

    def clean_budget_nano(self) -> int | None:
        text = str(self.cleaned_data["budget_nano"]).strip().removeprefix("$").replace(",", "")
        if not text:
            return None
        try:
            return nano_of_usd(text)
        except DomainError as error:
            raise forms.ValidationError(error.message) from error

    def changes(self) -> dict[str, int | None]:
        return dict(self.cleaned_data)

    @staticmethod
    def shown(own: OwnLimits) -> dict[str, Any]:
        budget = None if own.budget_nano is None else usd(own.budget_nano)
        return {
            "requests_per_minute": own.requests_per_minute,
            "tokens_per_minute": own.tokens_per_minute,
            "concurrency": own.concurrency,
            "budget_nano": budget,
        }


def role_choices(caller: Caller) -> list[tuple[str, Any]]:
    return [(role.value, role.label) for role in Role if role in caller.roles]


def refused(form: forms.Form, error: DomainError) -> None:
    """Show a room's refusal where it belongs: at the field it names, or above the form."""
    field = error.param if error.param in form.fields else None
    form.add_error(field, error.message)


def _choose_from(form: forms.Form, field: str, choices: Iterable[tuple[str, Any]]) -> None:
    chosen = form.fields[field]
    assert isinstance(chosen, forms.ChoiceField)
    chosen.choices = list(choices)
