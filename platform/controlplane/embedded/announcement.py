"""The block that a start ends in: where things are, who may sign in, a curl that works as it is."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controlplane.embedded.home import HomeDamaged


@dataclass(frozen=True, kw_only=True)
class DemoOrganization:
    name: str
    slug: str
    email: str
    password: str
    key: str
    model: str
    question: str


@dataclass(frozen=True, kw_only=True)
class Demo:
    """Logins and keys as the seed wrote them down: keys are shown nowhere else."""

    operator_email: str
    operator_password: str
    organizations: tuple[DemoOrganization, ...]

    @classmethod
    def load(cls, path: Path) -> Demo | None:
        """``None`` where there is no demo."""
        try:
            found: dict[str, Any] = json.loads(path.read_text())
            return cls(
                operator_email=found["operator"]["email"],
                operator_password=found["operator"]["password"],
                organizations=tuple(DemoOrganization(**one) for one in found["organizations"]),
            )
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise HomeDamaged(
                f"{path} cannot be read ({error!r}); delete it and start again: the demo's logins "
                "and keys are then made anew."
            ) from None


@dataclass(frozen=True, kw_only=True)
class Models:
    """How far the demo's models are. ``trouble`` says why they do not answer; empty: they do."""

    deployed: int = 0
    trouble: str = ""
    simulated: bool = False


def announcement(
    *,
    portal_url: str,
    gateway_url: str,
    demo: Demo | None,
    models: Models,
    detached: bool,
) -> str:
    """Plain text, for a terminal."""
    lines = ["", "Tessera is running.", ""]
    lines += [f"  Portal    {portal_url}", f"  API       {gateway_url}/v1", ""]
    if demo is None:
        lines += _empty_lines(portal_url)
    else:
        lines += [*_logins(demo, portal_url), "", *_question(demo, gateway_url, models)]
    lines += ["", f"  {_IN_BACKGROUND if detached else _IN_FOREGROUND}", ""]
    return "\n".join(lines)


_IN_FOREGROUND = "Ctrl-C stops everything; data is kept."
_IN_BACKGROUND = "`make status` shows the parts, `make down` stops them; data is kept."


def curl(organization: DemoOrganization, gateway_url: str) -> str:
    """A command that a shell takes as it stands."""
    body = {
        "model": organization.model,
        "messages": [{"role": "user", "content": organization.question}],
    }
    return (
        f"curl {gateway_url}/v1/chat/completions \\\n"
        f"    -H {shlex.quote(f'Authorization: Bearer {organization.key}')} \\\n"
        f"    -H 'Content-Type: application/json' \\\n"
        f"    -d {shlex.quote(json.dumps(body))}"
    )


def _logins(demo: Demo, portal_url: str) -> list[str]:
    rows = [(one.name, one.email, one.password, "") for one in demo.organizations]
    admin = f"  ({portal_url}/admin/)"
    rows.append(("Operator", demo.operator_email, demo.operator_password, admin))
    names, emails = (max(len(row[place]) for row in rows) for place in (0, 1))
    return [
        "  Sign in:",
        *(f"    {name:<{names}}  {email:<{emails}}  {rest}{at}" for name, email, rest, at in rows),
    ]


def _question(demo: Demo, gateway_url: str, models: Models) -> list[str]:
    first = demo.organizations[0]
    if not models.deployed:
        return [f"  No model answers: {models.trouble}"]
    if models.trouble:
        head = [f"  {first.name}'s model does not answer yet: {models.trouble}", "  Once it does:"]
    elif models.simulated:
        head = [f"  Ask {first.name}'s model (a simulator answers; its texts mean nothing):"]
    else:
        head = [f"  Ask {first.name}'s model:"]
    return [*head, "", f"    {curl(first, gateway_url)}"]


def _empty_lines(portal_url: str) -> list[str]:
    return [
        "  Nothing is in it yet. Make an operator who may sign in:",
        "    .venv/bin/python manage.py createsuperuser",
        f"  then found an organization at {portal_url}/admin/.",
    ]
