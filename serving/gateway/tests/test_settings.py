from __future__ import annotations

from pathlib import Path

import pytest

from serving.gateway.settings import SettingsError, settings_from

GOOD = {
    "REDIS_URL": "redis://localhost",
    "TESSERA_DATABASE_GATEWAY_URL": "postgresql:///x",
    "TESSERA_KEY_PEPPER": "ab" * 32,
    "TESSERA_DOCUMENT_KEY": "ab" * 32,
    "TESSERA_SALT_KEY": "ab" * 32,
    "TESSERA_ENGINE_KEY": "ab" * 32,
}


def test_what_is_not_said_has_a_default() -> None:
    settings = settings_from(GOOD)
    assert (settings.cell, settings.processes, settings.portal_origins) == ("local", 2, frozenset())
    assert settings.home == Path(".tessera").absolute()


def test_lists_are_taken_apart() -> None:
    settings = settings_from({**GOOD, "TESSERA_PORTAL_ORIGINS": "http://a, http://b,"})
    assert settings.portal_origins == {"http://a", "http://b"}


@pytest.mark.parametrize("name", GOOD)
def test_a_missing_variable_is_named(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        settings_from({key: value for key, value in GOOD.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TESSERA_KEY_PEPPER", "short"),
        ("TESSERA_SALT_KEY", "z" * 64),
        ("TESSERA_GATEWAY_DRAIN_SECONDS", "soon"),
        ("TESSERA_GATEWAY_BODY_BYTES", "-1"),
        ("TESSERA_GATEWAY_IDLE_SECONDS", "inf"),
        ("TESSERA_JOURNAL_SYNC", "always"),
    ],
)
def test_a_wrong_value_is_named_and_secrets_are_not_repeated(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name) as caught:
        settings_from({**GOOD, name: value})
    if not name.startswith(("TESSERA_GATEWAY", "TESSERA_JOURNAL")):
        assert value not in str(caught.value)
