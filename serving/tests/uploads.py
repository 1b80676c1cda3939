"""Uploading as a client does it, through the REST API."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.test import Client

from serving.artifacts.tests import adapters
from serving.models import BaseModel
from serving.services.artifacts import PART_BYTES


def base() -> BaseModel:
    """The base model that the adapters of ``serving.artifacts.tests.adapters`` are made for."""
    return BaseModel.objects.create(
        slug=adapters.BASE,
        name="Tiny Llama",
        served_name=adapters.BASE,
        folder="/models/tiny-llama",
        digest="0" * 64,
        modules={name: list(shape) for name, shape in adapters.MODULES.items()},
        context_tokens=2048,
        default_output_tokens=256,
    )


def adapter_bytes(folder: Path, **changes: Any) -> dict[str, bytes]:
    return {
        name: path.read_bytes() for name, path in adapters.write_adapter(folder, **changes).items()
    }


def declaration(files: Mapping[str, bytes]) -> dict[str, Any]:
    return {
        "name": "Support desk",
        "base": adapters.BASE,
        "files": [
            {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            for name, data in files.items()
        ],
    }


def begin(client: Client, files: Mapping[str, bytes]) -> dict[str, Any]:
    answer = client.post("/api/v1/artifacts", declaration(files), content_type="application/json")
    assert answer.status_code == 201, answer.content
    made: dict[str, Any] = answer.json()
    return made


def send(client: Client, artifact: str, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        for number, start in enumerate(range(0, len(data), PART_BYTES)):
            answer = put_part(client, artifact, name, number, data[start : start + PART_BYTES])
            assert answer.status_code == 204, answer.content


def put_part(client: Client, artifact: str, name: str, number: int, body: bytes) -> Any:
    return client.put(
        f"/api/v1/artifacts/{artifact}/files/{name}/parts/{number}",
        body,
        content_type="application/octet-stream",
    )


def complete(client: Client, artifact: str) -> Any:
    return client.post(f"/api/v1/artifacts/{artifact}/complete")


def show(client: Client, artifact: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/artifacts/{artifact}")
    assert answer.status_code == 200, answer.content
    found: dict[str, Any] = answer.json()
    return found


def upload(client: Client, files: Mapping[str, bytes]) -> str:
    """A complete upload that waits for its verdict; its id."""
    made = begin(client, files)
    send(client, made["id"], files)
    answer = complete(client, made["id"])
    assert answer.status_code == 202, answer.content
    return str(made["id"])
