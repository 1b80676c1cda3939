from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from controlplane.embedded.announcement import Demo, DemoOrganization, announcement, curl
from controlplane.embedded.home import HomeDamaged

ACME = DemoOrganization(
    name="Acme",
    slug="acme",
    email="ada@acme.example",
    password="pass-acme",
    key="tsr_live_key",
    model="support",
    question="What's the way to return an item?",
)
GLOBEX = DemoOrganization(
    name="Globex",
    slug="globex",
    email="gus@globex.example",
    password="pass-globex",
    key="tsr_live_other",
    model="legal",
    question="?",
)
DEMO = Demo(
    operator_email="operator@example",
    operator_password="pass-operator",
    organizations=(ACME, GLOBEX),
)


def test_the_curl_is_what_a_shell_understands() -> None:
    words = shlex.split(curl(ACME, "http://127.0.0.1:8080"))
    assert words[:2] == ["curl", "http://127.0.0.1:8080/v1/chat/completions"]
    assert "Authorization: Bearer tsr_live_key" in words
    body = json.loads(words[words.index("-d") + 1])
    assert body["model"] == "support"
    assert body["messages"][0]["content"] == "What's the way to return an item?"


def test_everybody_s_login_is_told() -> None:
    text = announcement(portal_url="http://portal", gateway_url="http://gateway", demo=DEMO)
    for expected in ("http://portal", "http://gateway/v1", "pass-acme", "pass-globex", "operator@"):
        assert expected in text


def test_an_empty_installation_says_how_to_begin() -> None:
    text = announcement(portal_url="http://portal", gateway_url="http://gateway", demo=None)
    assert "createsuperuser" in text


def test_the_demo_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "demo.json"
    assert Demo.load(path) is None
    operator = {"email": "operator@example", "password": "pass-operator"}
    organizations = [ACME.__dict__, GLOBEX.__dict__]
    path.write_text(json.dumps({"operator": operator, "organizations": organizations}))
    assert Demo.load(path) == DEMO
    path.write_text("{}")
    with pytest.raises(HomeDamaged, match="delete it and start again"):
        Demo.load(path)
