"""The demo: an operator, and two organizations that each have an adapter of their own deployed.

Made on the first start and completed on every later one: what a kill left out is made then. Logins
and keys are random for each installation and written down in its home before they are used, because
keys are shown nowhere else.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from uuid import UUID

from controlplane.embedded.announcement import Demo, DemoOrganization
from controlplane.engine.base import DEMO, DemoBase
from controlplane.prices import base_price_ensure
from serving.models import Artifact, ArtifactStatus, BaseModel, Deployment, ModelVersion
from serving.selectors import artifact_get
from serving.services import (
    DeclaredFile,
    artifact_complete,
    artifact_create,
    artifact_validate,
    base_model_register,
    deployment_create,
    part_put,
    version_create,
)
from serving.services.artifacts import PART_BYTES
from supervisor.folders import write_private
from tenants.access import Caller
from tenants.models import Organization, Scope, User
from tenants.scope import organization_scope, platform_scope
from tenants.services import key_create, organization_create, user_save

QUESTION = "What is your refund policy?"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
CALLER = Caller.system("demo")
# Nano-USD per token, for a model of this size: 0.02, 0.01 and 0.06 dollars per million tokens.
PRICE = {"input_nano": 20, "cached_input_nano": 10, "output_nano": 60}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Desk:
    """One demo organization: what it is called and the model it serves."""

    name: str
    slug: str
    model: str


DESKS = (Desk("Acme", "acme", "support"), Desk("Globex", "globex", "legal"))


def demo_seed(path: Path, *, base: DemoBase | None, say: Say) -> Demo:
    """Make what is missing of the demo; ``path`` keeps its logins and keys.

    Without a ``base`` there are the organizations and their logins, and nothing is deployed.
    """
    demo = Demo.load(path) or _new_logins()
    _keep(demo, path)
    _user(demo.operator_email, demo.operator_password, is_operator=True)
    registered = base and base_register(base)
    for place, desk in enumerate(DESKS):
        login = demo.organizations[place]
        organization = _organization(desk, _user(login.email, login.password))
        if not login.key:
            demo = _with(demo, place, replace(login, key=_key(organization.id)))
            _keep(demo, path)
        if registered:
            _deployed(desk, organization.id, registered, say)
    return demo


def base_register(base: DemoBase) -> BaseModel:
    """Offer the demo's base model to every organization of this installation, at a price."""
    registered = base_model_register(
        base.folder, slug=base.name, name=base.name, served_name=base.name, caller=CALLER
    )
    base_price_ensure(registered.slug, caller=CALLER, **PRICE)
    return registered


def _new_logins() -> Demo:
    return Demo(
        operator_email="operator@example.com",
        operator_password=_password(),
        organizations=tuple(
            DemoOrganization(
                name=desk.name,
                slug=desk.slug,
                email=f"owner@{desk.slug}.example.com",
                password=_password(),
                key="",
                model=desk.model,
                question=QUESTION,
            )
            for desk in DESKS
        ),
    )


def _password() -> str:
    return secrets.token_urlsafe(15)


def _keep(demo: Demo, path: Path) -> None:
    operator = {"email": demo.operator_email, "password": demo.operator_password}
    kept = {"operator": operator, "organizations": [asdict(each) for each in demo.organizations]}
    write_private(path, json.dumps(kept, indent=1))


def _user(email: str, password: str, *, is_operator: bool = False) -> User:
    """The account, with the password that is written down, whatever it had before."""
    with platform_scope():
        user = User.objects.filter(email__iexact=email).first() or User(email=email)
        if user.check_password(password):
            return user
        user.is_staff = user.is_superuser = is_operator
        user.set_password(password)
    return user_save(user, caller=CALLER)


def _organization(desk: Desk, owner: User) -> Organization:
    with platform_scope():
        found = Organization.objects.filter(slug=desk.slug).first()
    return found or organization_create(CALLER, name=desk.name, slug=desk.slug, owner=owner)


def _key(organization: UUID) -> str:
    made = key_create(organization, caller=CALLER, name="Demo", scopes=[Scope.INFERENCE])
    return made.secret


def _with(demo: Demo, place: int, login: DemoOrganization) -> Demo:
    logins = list(demo.organizations)
    logins[place] = login
    return replace(demo, organizations=tuple(logins))


def _deployed(desk: Desk, organization: UUID, base: BaseModel, say: Say) -> None:
    with organization_scope(organization):
        if Deployment.objects.filter(organization_id=organization, slug=desk.model).exists():
            return
        version = ModelVersion.objects.filter(organization_id=organization, name=desk.model).first()
    if version is None:
        artifact = _uploaded(desk, organization, base)
        if artifact.status != ArtifactStatus.READY:
            say(f"{desk.name}'s adapter is not for {base.slug}: {artifact.reason}")
            return
        version = version_create(
            organization, caller=CALLER, name=desk.model, artifact_id=artifact.id
        )
    deployment_create(organization, caller=CALLER, slug=desk.model, version_id=version.id)
    say(f"{desk.name}: {desk.model} is on its way.")


def _uploaded(desk: Desk, organization: UUID, base: BaseModel) -> Artifact:
    """The adapter that lies beside the demo's texts, by the way that every upload takes."""
    files = [DEMO / desk.slug / "adapter" / name for name in ADAPTER_FILES]
    artifact = artifact_create(
        organization,
        caller=CALLER,
        name=desk.model,
        base=base.slug,
        files=[_declared(file) for file in files],
    )
    for file in files:
        _sent(organization, artifact.id, file)
    artifact_complete(organization, artifact.id, caller=CALLER)
    artifact_validate(artifact.id)
    with organization_scope(organization):
        return artifact_get(organization, artifact.id)


def _declared(file: Path) -> DeclaredFile:
    content = file.read_bytes()
    return DeclaredFile(
        name=file.name, size_bytes=len(content), sha256=hashlib.sha256(content).hexdigest()
    )


def _sent(organization: UUID, artifact: UUID, file: Path) -> None:
    content = file.read_bytes()
    for number, start in enumerate(range(0, len(content), PART_BYTES)):
        part_put(
            organization,
            artifact,
            caller=CALLER,
            file_name=file.name,
            number=number,
            body=BytesIO(content[start : start + PART_BYTES]),
        )
