"""Which object store the environment asks for."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PROGRAM = """
from django.conf import settings as s
print([s.AWS_ENDPOINT_URL_S3, s.AWS_STORAGE_BUCKET_NAME, s.AWS_REGION])
"""


def _settings(**environ: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"}}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**inherited, "DJANGO_SETTINGS_MODULE": "controlplane.settings.dev", **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, ["", "", ""]),
        (
            {"AWS_STORAGE_BUCKET_NAME": "tessera", "AWS_REGION": "eu-central-1"},
            ["", "tessera", "eu-central-1"],
        ),
        (
            {"AWS_ENDPOINT_URL_S3": "http://minio:9000", "AWS_STORAGE_BUCKET_NAME": "tessera"},
            ["http://minio:9000", "tessera", ""],
        ),
    ],
)
def test_an_object_store_is_understood(environ: dict[str, str], expected: list[str]) -> None:
    assert _settings(**environ).stdout.strip() == str(expected)


def test_an_address_without_a_bucket_stops_the_process_and_says_what_is_missing() -> None:
    done = _settings(AWS_ENDPOINT_URL_S3="http://minio:9000")
    assert done.returncode != 0
    assert "AWS_STORAGE_BUCKET_NAME is not" in done.stderr.strip().splitlines()[-1]


def test_an_address_that_is_none_names_its_variable() -> None:
    done = _settings(AWS_ENDPOINT_URL_S3="minio:9000", AWS_STORAGE_BUCKET_NAME="tessera")
    last = done.stderr.strip().splitlines()[-1]
    assert "AWS_ENDPOINT_URL_S3 must begin with http:// or https://" in last
