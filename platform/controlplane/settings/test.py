"""Tests: a PostgreSQL and a Redis of the test session's own, unless the environment names others.

``conftest.py`` at the root starts them when the first test needs one and puts their addresses here.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

TEST_RUN_DIR = Path(tempfile.gettempdir()) / f"tessera-test-{os.getpid()}"

for _name, _value in {
    "SECRET_KEY": "00" * 32,
    "TESSERA_KEY_PEPPER": "11" * 32,
    "TESSERA_DOCUMENT_KEY": "22" * 32,
    "TESSERA_SALT_KEY": "33" * 32,
    "TESSERA_ENGINE_KEY": "44" * 32,
    "TESSERA_HOME": f"{TEST_RUN_DIR}/home",
}.items():
    os.environ.setdefault(_name, _value)
# Tests never keep a file in anybody's bucket, nor do the processes they start.
for _name in ("AWS_ENDPOINT_URL_S3", "AWS_STORAGE_BUCKET_NAME"):
    os.environ.pop(_name, None)

from .base import *  # noqa: E402, F403

ALLOWED_HOSTS = ["testserver", "localhost", "127.0.0.1"]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
