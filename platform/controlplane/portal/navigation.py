"""The portal's sections: one table of what there is and the permission that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from tenants.access import Caller, Permission

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise  # known to the type checker only


@dataclass(frozen=True, slots=True)
class Entry:
    """``name`` is the first word of the url names that belong to this section."""

    name: str
    label: str | _StrPromise
    icon: str
    permission: Permission

    @property
    def view(self) -> str:
        return f"portal:{self.name}"


@dataclass(frozen=True, slots=True)
class Section:
    label: str | _StrPromise
    entries: tuple[Entry, ...]
    titled: bool = True


_SECTIONS = (
    Section(
        _("Build"),
        (
            Entry("home", _("Home"), "house", Permission.ORGANIZATION_READ),
            Entry("playground", _("Playground"), "message-square", Permission.INFERENCE),
            Entry("models", _("Models"), "box", Permission.MODEL_READ),
            Entry("deployments", _("Deployments"), "rocket", Permission.MODEL_READ),
            Entry("keys", _("API keys"), "key-round", Permission.KEY_READ),
            Entry("usage", _("Usage"), "chart-no-axes-column", Permission.USAGE_READ),
            Entry("limits", _("Limits"), "gauge", Permission.USAGE_READ),
        ),
        titled=False,
    ),
    Section(
        _("Organization"),
        (
            Entry("members", _("Members"), "users", Permission.MEMBER_READ),
            Entry("audit", _("Audit log"), "scroll-text", Permission.AUDIT_READ),
        ),
    ),
)


def sections_for(caller: Caller) -> tuple[Section, ...]:
    """The sections this caller may open, without those that would be empty."""
    shown = (
        Section(
            section.label,
            tuple(entry for entry in section.entries if caller.can(entry.permission)),
            section.titled,
        )
        for section in _SECTIONS
    )
    return tuple(section for section in shown if section.entries)
