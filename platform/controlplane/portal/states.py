"""How a state looks: an icon, a word and a tone, so that colour alone never carries the meaning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise  # known to the type checker only

Tone = Literal["good", "busy", "bad", "quiet"]


@dataclass(frozen=True, slots=True)
class Look:
    tone: Tone
    icon: str
    word: str | _StrPromise


_LOOKS: Mapping[str, Look] = {
    # deployments
    "pending": Look("busy", "circle-dashed", _("Pending")),
    "loading": Look("busy", "loader-circle", _("Loading")),
    "ready": Look("good", "circle-check", _("Ready")),
    "failed": Look("bad", "circle-x", _("Failed")),
    "deleting": Look("busy", "loader-circle", _("Deleting")),
    # uploads
    "uploading": Look("busy", "upload", _("Uploading")),
    "validating": Look("busy", "loader-circle", _("Validating")),
    "refused": Look("bad", "circle-x", _("Refused")),
    # keys
    "active": Look("good", "circle-check", _("Active")),
    "expired": Look("quiet", "clock", _("Expired")),
    "revoked": Look("quiet", "ban", _("Revoked")),
}


def look(state: str) -> Look:
    """The look of a state; one that is not known here is shown as it is called, quietly."""
    return _LOOKS.get(state) or Look("quiet", "circle-dashed", state.replace("_", " ").capitalize())


_WHY: Mapping[str, str | _StrPromise] = {
    "pending": _("Waits for the controller's next look; that takes seconds."),
    "loading": _("Engines are loading it."),
    "ready": _("Proven on an engine; it answers."),
    "failed": _("It cannot be served."),
    "deleting": _("Leaves the engines; its name no longer answers."),
}


def why(state: str, reason: str) -> str | _StrPromise:
    """The reason that was observed, or what the state means where it needs none."""
    return reason or _WHY.get(state, "")
