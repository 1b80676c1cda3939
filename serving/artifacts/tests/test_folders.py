from __future__ import annotations

import subprocess
import sys

import pytest
from pytest_django.fixtures import Settings

from serving.artifacts.folders import object_store
from serving.artifacts.s3 import S3Store
from serving.artifacts.store import FolderStore

PARTS_OF_THE_CONTROL_PLANE = """
import sys
import controlplane.wsgi
from controlplane.celery import app
from serving.artifacts.folders import object_store
app.loader.import_default_modules()
controlplane.wsgi.application.load_middleware()
__import__("controlplane.urls")
object_store()
print([name for name in ("boto3", "botocore", "s3transfer") if name in sys.modules])
"""


def test_files_are_in_a_folder_where_no_bucket_is_named() -> None:
    assert isinstance(object_store(), FolderStore)


def test_files_are_in_the_bucket_that_is_named(settings: Settings) -> None:
    settings.AWS_STORAGE_BUCKET_NAME = "tessera"
    assert isinstance(object_store(), S3Store)


@pytest.mark.parametrize("region", ["", "eu-central-1"])
def test_a_bucket_alone_is_one_of_amazons(settings: Settings, region: str) -> None:
    settings.AWS_STORAGE_BUCKET_NAME, settings.AWS_REGION = "tessera", region
    store = object_store()
    assert isinstance(store, S3Store)
    assert store._client.meta.endpoint_url.endswith(".amazonaws.com")
    assert region in store._client.meta.endpoint_url


def test_without_a_bucket_nobody_pays_for_boto3() -> None:
    argv = [sys.executable, "-c", PARTS_OF_THE_CONTROL_PLANE]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[]", done.stderr
