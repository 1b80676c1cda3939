"""Two organizations, an adapter each, three different answers, and usage that adds up.

Walks the path of a new customer through the public doors only: the REST API and the stock
``openai`` package.
``manage.py demo`` runs it; by hand it needs in the environment:

    TESSERA_PORTAL_URL, TESSERA_GATEWAY_URL      where the two doors are
    TESSERA_DEMO_EMAIL, TESSERA_DEMO_PASSWORD    somebody who may found organizations

Prints what it does, then one JSON object in the last line; exits 1 where something is not as it
must be.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import openai

QUESTION = "What is your refund policy?"
BASE = "smollm2-135m-instruct"
ADAPTERS = Path(__file__).parent
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
READY_WITHIN_SECONDS = 300
USAGE_WITHIN_SECONDS = 60


@dataclass(frozen=True)
class Customer:
    """One organization as its own app sees it."""

    organization: str
    model: str
    key: str


@dataclass(frozen=True)
class Answer:
    text: str
    input_tokens: int
    output_tokens: int
    first_token_at: float


class Rest:
    """The REST API: sign in once, then plain calls that stop the walk when they are refused."""

    def __init__(self, url: str) -> None:
        self._http = httpx2.Client(base_url=f"{url}/api/v1", timeout=60)

    def sign_in(self, email: str, password: str) -> None:
        self._take_token(self.get("session"))
        self._take_token(self.post("session", {"email": email, "password": password}))

    def get(self, path: str, **query: str) -> Any:
        return _body(self._http.get(f"/{path}", params=query))

    def post(self, path: str, body: dict[str, Any], **query: str) -> Any:
        return _body(self._http.post(f"/{path}", json=body, params=query))

    def put(self, path: str, content: bytes, **query: str) -> Any:
        headers = {"Content-Type": "application/octet-stream"}
        return _body(self._http.put(f"/{path}", content=content, params=query, headers=headers))

    def _take_token(self, session: dict[str, Any]) -> None:
        self._http.headers["X-CSRFToken"] = session["csrf_token"]


def main() -> None:
    started = float(os.environ.get("TESSERA_DEMO_STARTED_AT") or time.time())
    portal, gateway = os.environ["TESSERA_PORTAL_URL"], os.environ["TESSERA_GATEWAY_URL"]
    rest = Rest(portal)
    rest.sign_in(os.environ["TESSERA_DEMO_EMAIL"], os.environ["TESSERA_DEMO_PASSWORD"])
    seconds_to_portal = os.environ.get("TESSERA_DEMO_PORTAL_SECONDS") or time.time() - started
    say(f"Signed in at {portal}.")

    acme = customer(rest, "acme", "support")
    support = streamed(gateway, acme, QUESTION)
    globex = customer(rest, "globex", "legal")
    legal = streamed(gateway, globex, QUESTION)
    plain = asked_of_base(rest, acme, gateway)

    say(f"\nThree models were asked: {QUESTION!r}\n")
    say(f"  Acme's support:   {support.text}")
    say(f"  Globex's legal:   {legal.text}")
    say(f"  the base model:   {plain.text}\n")

    foreign = foreign_status(gateway, acme, globex)
    say(f"Acme's key asks for Globex's model: {foreign}.")
    equal = usage_adds_up(rest, acme, [support, plain]) & usage_adds_up(rest, globex, [legal])

    distinct = len({support.text, legal.text, plain.text}) == 3
    result = {
        "answers_distinct": distinct,
        "foreign_model_status": foreign,
        "usage_equal": equal,
        "seconds_to_portal": round(float(seconds_to_portal), 1),
        "seconds_to_first_token": round(support.first_token_at - started, 1),
    }
    print(json.dumps(result), flush=True)
    if not (distinct and equal and foreign == 404):
        sys.exit(1)


def customer(rest: Rest, name: str, model: str) -> Customer:
    """Found an organization, upload its adapter, deploy it, and wait until it is proven ready."""
    slug = f"{name}-{secrets.token_hex(3)}"
    organization = rest.post("organizations", {"name": name.title(), "slug": slug})["id"]
    artifact = upload(rest, organization, ADAPTERS / name / "adapter")
    version = rest.post("models", {"name": model, "artifact": artifact}, organization=organization)
    deploy(rest, organization, model, version["id"])
    key = rest.post(
        "keys", {"name": "walkthrough", "scopes": ["inference"]}, organization=organization
    )
    return Customer(organization=organization, model=model, key=key["secret"])


def upload(rest: Rest, organization: str, folder: Path) -> str:
    """Send the adapter's files in parts and wait for the validator's verdict."""
    files = [folder / name for name in ADAPTER_FILES]
    declared = [
        {
            "name": file.name,
            "size_bytes": file.stat().st_size,
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        for file in files
    ]
    made = rest.post(
        "artifacts",
        {"name": folder.parent.name, "base": BASE, "kind": "adapter", "files": declared},
        organization=organization,
    )
    for file in files:
        for number, part in parts(file, made["part_size_bytes"]):
            path = f"artifacts/{made['id']}/files/{file.name}/parts/{number}"
            rest.put(path, part, organization=organization)
    rest.post(f"artifacts/{made['id']}/complete", {}, organization=organization)
    checked = wait_for(
        lambda: rest.get(f"artifacts/{made['id']}", organization=organization),
        done={"ready"},
        failed={"refused"},
    )
    size = sum(file.stat().st_size for file in files)
    say(f"{folder.parent.name}: uploaded {size:,} bytes, digest {checked['digest'][:12]}.")
    return str(made["id"])


def deploy(rest: Rest, organization: str, slug: str, version: str) -> None:
    made = rest.post("deployments", {"slug": slug, "version": version}, organization=organization)
    wait_for(
        lambda: rest.get(f"deployments/{made['id']}", organization=organization),
        done={"ready"},
        failed={"failed"},
    )
    say(f"{slug}: deployed, proven and ready.")


def asked_of_base(rest: Rest, asking: Customer, gateway: str) -> Answer:
    """The base model's own answer, from a deployment without an adapter."""
    version = rest.post("models", {"name": "plain", "base": BASE}, organization=asking.organization)
    deploy(rest, asking.organization, "plain", version["id"])
    plain = replace(asking, model="plain")
    return streamed(gateway, plain, QUESTION)


def streamed(gateway: str, asking: Customer, question: str) -> Answer:
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=asking.key, timeout=120)
    text, usage, first = "", None, 0.0
    for chunk in client.chat.completions.create(
        model=asking.model,
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=80,
        stream=True,
        stream_options={"include_usage": True},
    ):
        if chunk.choices and chunk.choices[0].delta.content:
            first = first or time.time()
            text += chunk.choices[0].delta.content
        usage = chunk.usage or usage
    if usage is None:
        raise SystemExit("The stream ended without usage.")
    return Answer(text.strip(), usage.prompt_tokens, usage.completion_tokens, first)


def foreign_status(gateway: str, asking: Customer, other: Customer) -> int:
    """What one organization's key gets for another's model."""
    client = openai.OpenAI(base_url=f"{gateway}/v1", api_key=asking.key, max_retries=0)
    try:
        client.chat.completions.create(
            model=other.model, messages=[{"role": "user", "content": QUESTION}], max_tokens=1
        )
    except openai.APIStatusError as error:
        return error.status_code
    return 200


def usage_adds_up(rest: Rest, customer: Customer, answers: list[Answer]) -> bool:
    """Whether the usage page says what the engine reported, once the shipper has brought it."""
    said = [
        sum(answer.input_tokens for answer in answers),
        sum(answer.output_tokens for answer in answers),
    ]
    booked: list[int] = []
    deadline = time.monotonic() + USAGE_WITHIN_SECONDS
    while booked != said and time.monotonic() < deadline:
        total = rest.get("usage", organization=customer.organization)["total"]
        booked = [total["input_tokens"], total["output_tokens"]]
        time.sleep(0.2)
    say(f"{customer.model}: the engine reported {said} tokens in and out, usage says {booked}.")
    return booked == said


def parts(file: Path, size: int) -> Iterator[tuple[int, bytes]]:
    with file.open("rb") as source:
        yield from enumerate(iter(lambda: source.read(size), b""))


def wait_for(look: Callable[[], Any], *, done: set[str], failed: set[str]) -> Any:
    """Look until ``status`` is a good one; says every new reason on the way."""
    deadline = time.monotonic() + READY_WITHIN_SECONDS
    reason = ""
    while time.monotonic() < deadline:
        found = look()
        if found["status"] in done:
            return found
        if found["status"] in failed:
            raise SystemExit(f"{found['status']}: {found['reason']}")
        if found["reason"] and found["reason"] != reason:
            reason = found["reason"]
            say(f"  {reason}")
        time.sleep(0.2)
    raise SystemExit(f"Not ready within {READY_WITHIN_SECONDS} s: {reason}")


def say(text: str) -> None:
    print(text, flush=True)


def _body(response: httpx2.Response) -> Any:
    if response.is_error:
        request = response.request
        raise SystemExit(
            f"{request.method} {request.url} answered {response.status_code}: {response.text[:500]}"
        )
    return response.json() if response.content else None


if __name__ == "__main__":
    main()
