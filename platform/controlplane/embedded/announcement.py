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


def announcement(*, portal_url: str, gateway_url: str, demo: Demo | None) -> str:
    """Plain text, for a terminal."""
    lines = ["", "Tessera is running.", ""]
    lines += [f"  Portal    {portal_url}", f"  API       {gateway_url}/v1"]
    lines += _demo_lines(demo, portal_url, gateway_url) if demo else _empty_lines(portal_url)
    lines += ["", "  Ctrl-C stops everything (in the background: `make down`); data is kept.", ""]
    return "\n".join(lines)


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


def _demo_lines(demo: Demo, portal_url: str, gateway_url: str) -> list[str]:
    width = max(len(one.name) for one in demo.organizations)
    lines = ["", "  Sign in:"]
    lines += [f"    {one.name:<{width}}  {one.email}  {one.password}" for one in demo.organizations]
    lines.append(
        f"    {'Operator':<{width}}  {demo.operator_email}  {demo.operator_password}"
        f"  ({portal_url}/admin/)"
    )
    first = demo.organizations[0]
    lines += ["", f"  Ask {first.name}'s model:", "", f"    {curl(first, gateway_url)}"]
    return lines


def _empty_lines(portal_url: str) -> list[str]:
    return [
        "",
        "  Nothing is in it yet. Make an operator who may sign in:",
        "    .venv/bin/python manage.py createsuperuser",
        f"  then found an organization at {portal_url}/admin/.",
    ]
