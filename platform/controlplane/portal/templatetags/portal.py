"""What templates say in the portal's own words: icons, states, numbers and times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django import forms, template
from django.conf import settings
from django.forms import BoundField
from django.template import Context
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from billing.money import usd
from controlplane.limits import Meter
from controlplane.portal import icons, states, wording
from controlplane.portal.access import Member
from controlplane.portal.themes import THEME_COOKIE, THEMES
from tenants.access import Permission

register = template.Library()

_NEARLY = 0.8

register.simple_tag(icons.icon, name="icon")
register.filter("compact", wording.compact)
register.filter("grouped", wording.grouped)
register.filter("file_size", wording.file_size)
register.filter("plain", wording.plain)
register.filter("dollars", wording.dollars)
register.filter("duration", wording.duration)
register.filter("usd", usd)

_WIDGETS: tuple[tuple[type[forms.Widget], str], ...] = (
    (forms.CheckboxSelectMultiple, "choices"),
    (forms.RadioSelect, "choices"),
    (forms.CheckboxInput, "choice"),
    (forms.Select, "select"),
    (forms.Textarea, "textarea"),
)


@register.simple_tag
def state(name: str) -> SafeString:
    """A state as icon and word in its tone."""
    look = states.look(name)
    return format_html(
        '<span class="pill {}">{}{}</span>', look.tone, icons.icon(look.icon), look.word
    )


@register.inclusion_tag("portal/meter.html")
def meter(value: Meter | None, unit: str = "") -> dict[str, Any]:
    """A limit as a bar and in words; ``unit`` "money" counts nano-USD."""
    tone = "" if value is None else limit_tone(value)
    width = 0 if value is None else round(100 * value.share, 1)
    return {"meter": value, "is_money": unit == "money", "tone": tone, "width": f"{width:g}"}


def limit_tone(meter: Meter) -> str:
    """Accent while there is room, amber from four fifths on, red where nothing is left."""
    if meter.remaining == 0:
        return "bad"
    return "busy" if meter.share >= _NEARLY else "good"


@register.simple_tag
def signup_is_open() -> bool:
    return bool(settings.TESSERA_SIGNUP)


@register.simple_tag
def why(name: str, reason: str) -> str:
    """Why something is in a state, in a sentence."""
    return str(states.why(name, reason))


@register.simple_tag
def moment(value: datetime | None, otherwise: str = "") -> SafeString | str:
    """How long ago, with the exact time in UTC to look at."""
    if value is None:
        return otherwise
    exact = value.astimezone(UTC)
    return format_html(
        '<time class="nowrap" datetime="{}" title="{}">{}</time>',
        exact.isoformat(timespec="seconds"),
        exact.strftime("%Y-%m-%d %H:%M:%S UTC"),
        wording.ago(value, timezone.now()),
    )


@register.simple_tag(takes_context=True)
def theme(context: Context) -> str:
    """The colour scheme this browser asked for; empty follows the system."""
    request = context.get("request")
    chosen = request.COOKIES.get(THEME_COOKIE, "") if request else ""
    return chosen if chosen in THEMES else ""


@register.simple_tag(takes_context=True)
def may(context: Context, permission: str) -> bool:
    """Whether the member looking at this page has the permission."""
    member: Member = context["member"]
    return member.caller.can(Permission(permission))


@register.simple_tag(takes_context=True)
def here(context: Context, name: str) -> bool:
    """Whether the page shown belongs to the section called ``name``."""
    match: Any = context["request"].resolver_match
    return match is not None and (match.url_name or "").split("-")[0] == name


@register.inclusion_tag("portal/field.html")
def field(bound: BoundField) -> dict[str, Any]:
    """A form field with its label, hint and errors, tied together for screen readers."""
    kind = next(
        (name for widget, name in _WIDGETS if isinstance(bound.field.widget, widget)), "input"
    )
    single = kind in {"select", "textarea", "input"}
    return {
        "field": bound,
        "kind": kind,
        "widget": bound.as_widget(attrs={"class": kind}) if single else bound,
    }
