from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from controlplane.embedded.announcement import (
    Demo,
    DemoOrganization,
    Models,
    announcement,
    curl,
)
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


def announced(demo: Demo | None, models: Models, *, detached: bool = False) -> str:
    return announcement(
        portal_url="http://portal",
        gateway_url="http://gateway",
        demo=demo,
        models=models,
        detached=detached,
    )


def test_everybody_s_login_is_told_in_columns() -> None:
    text = announced(DEMO, Models(deployed=2))
    for expected in ("http://portal", "http://gateway/v1", "pass-acme", "pass-globex", "operator@"):
        assert expected in text
    logins = [line for line in text.splitlines() if "pass-" in line]
    assert len({line.index("@") - len(line.split()[1].partition("@")[0]) for line in logins}) == 1
    assert len({line.index("pass-") for line in logins}) == 1


def test_a_curl_is_offered_once_models_answer() -> None:
    text = announced(DEMO, Models(deployed=2))
    assert "Ask Acme's model:" in text
    assert "curl http://gateway" in text


def test_a_model_that_does_not_answer_yet_says_why() -> None:
    text = announced(DEMO, Models(deployed=2, trouble="Waiting for an engine to start."))
    assert "does not answer yet: Waiting for an engine" in text
    assert "Once it does:" in text


def test_where_no_model_is_there_is_no_curl() -> None:
    text = announced(DEMO, Models(trouble="the engine is not installed."))
    assert "No model answers: the engine is not installed." in text
    assert "curl" not in text


def test_a_simulator_is_called_one() -> None:
    assert "a simulator answers" in announced(DEMO, Models(deployed=2, simulated=True))


def test_how_it_is_stopped_depends_on_where_it_runs() -> None:
    assert "Ctrl-C stops everything" in announced(DEMO, Models(deployed=2))
    assert "Ctrl-C" not in announced(DEMO, Models(deployed=2), detached=True)
    assert "make down" in announced(DEMO, Models(deployed=2), detached=True)


def test_an_empty_installation_says_how_to_begin() -> None:
    assert "createsuperuser" in announced(None, Models())


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
