from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from controlplane.embedded.home import SECRET_NAMES, Home, HomeDamaged, fill_environment
from supervisor.errors import FolderUnusable


def test_secrets_are_made_once_and_for_this_user_alone(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.prepare()
    first = home.secrets()
    assert set(first) == set(SECRET_NAMES)
    assert len(set(first.values())) == len(SECRET_NAMES)
    assert all(len(bytes.fromhex(value)) == 32 for value in first.values())
    assert home.secrets() == first
    assert (home.folder / "secrets.json").stat().st_mode & 0o777 == 0o600
    for folder in (home.folder, home.run, home.logs, home.folder / "journal"):
        assert folder.stat().st_mode & 0o777 == 0o700


def test_an_open_folder_is_tightened(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir(mode=0o755)
    Home(tmp_path / "home").prepare()
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700


def test_damaged_secrets_are_never_replaced(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (tmp_path / "secrets.json").write_text("{half")
    with pytest.raises(HomeDamaged, match="restore it from a backup"):
        home.secrets()
    assert (tmp_path / "secrets.json").read_text() == "{half"


def test_secrets_that_lack_one_are_refused_by_its_name(tmp_path: Path) -> None:
    kept = dict.fromkeys(SECRET_NAMES, "x") | {"TESSERA_SALT_KEY": ""}
    (tmp_path / "secrets.json").write_text(json.dumps(kept))
    with pytest.raises(HomeDamaged, match=r"has no TESSERA_SALT_KEY; restore it from a backup"):
        Home(tmp_path).secrets()


def test_a_home_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    with pytest.raises(FolderUnusable, match="let TESSERA_HOME name a place"):
        Home(tmp_path / "home").prepare()


def test_a_home_too_deep_for_sockets_keeps_them_elsewhere(tmp_path: Path) -> None:
    home = Home(tmp_path / ("deep" * 30))
    assert len(str(home.run)) < 51
    assert home.run == Home(tmp_path / ("deep" * 30)).run
    assert home.run != Home(tmp_path / ("deep" * 31)).run


@pytest.mark.parametrize("starting", ["up", "demo"])
def test_only_a_command_that_starts_a_stack_makes_an_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, starting: str
) -> None:
    monkeypatch.setenv("TESSERA_HOME", str(tmp_path / "home"))
    for name in SECRET_NAMES:
        monkeypatch.delenv(name, raising=False)
    fill_environment("migrate")
    assert not (tmp_path / "home").exists()
    fill_environment(starting)
    assert os.environ["SECRET_KEY"] == Home(tmp_path / "home").secrets()["SECRET_KEY"]


@pytest.mark.parametrize("command", ["down", "status", "engine_install"])
def test_commands_that_touch_no_data_need_no_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setenv("TESSERA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    fill_environment(command)
    assert os.environ["DJANGO_SETTINGS_MODULE"] == "controlplane.settings.dev"


def test_other_commands_take_what_the_last_start_filled_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "environment.json").write_text(json.dumps({"REDIS_URL": "a", "TESSERA_CELL": "b"}))
    monkeypatch.setenv("TESSERA_HOME", str(tmp_path))
    monkeypatch.setenv("REDIS_URL", "mine")
    monkeypatch.delenv("TESSERA_CELL", raising=False)
    fill_environment("shell")
    assert os.environ["REDIS_URL"] == "mine"
    assert os.environ["TESSERA_CELL"] == "b"
