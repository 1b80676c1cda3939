"""The way from an empty organization to a first answer, and how far it has been gone. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy as _

from tenants.access import Caller, Permission

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise  # known to the type checker only


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What an organization has already."""

    uploaded: bool
    deployed: bool
    has_key: bool
    called: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    title: str | _StrPromise
    text: str | _StrPromise
    action: str | _StrPromise
    view: str
    permission: Permission
    done: bool = False


def steps(progress: Progress, caller: Caller) -> tuple[Step, ...]:
    """The steps this caller can take, in order; none where all of them are done."""
    every = (
        Step(
            title=_("Upload a model"),
            text=_("A LoRA adapter: adapter_config.json and adapter_model.safetensors."),
            action=_("Upload"),
            view="portal:models-new",
            permission=Permission.MODEL_MANAGE,
            done=progress.uploaded,
        ),
        Step(
            title=_("Deploy it"),
            text=_("It becomes a model name in the API once engines have proven that it works."),
            action=_("Deploy"),
            view="portal:deployments-new",
            permission=Permission.MODEL_MANAGE,
            done=progress.deployed,
        ),
        Step(
            title=_("Make an API key"),
            text=_("Shown once, with a call to paste."),
            action=_("Create key"),
            view="portal:keys",
            permission=Permission.KEY_MANAGE,
            done=progress.has_key,
        ),
        Step(
            title=_("Get a first answer"),
            text=_("From your own code, or from the playground right here."),
            action=_("Ask something"),
            view="portal:playground",
            permission=Permission.INFERENCE,
            done=progress.called,
        ),
    )
    own = tuple(step for step in every if caller.can(step.permission))
    return () if all(step.done for step in own) else own
