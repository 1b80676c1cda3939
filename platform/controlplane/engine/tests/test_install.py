"""Installing the engine with a stand-in for uv: whole or not at all, one at a time, in plain words."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from controlplane.engine import install
from controlplane.engine.environment import EngineUnavailable, engine_python, environment_folder
from controlplane.engine.install import install_engine, one_installer

FAKE_UV = """#!/bin/sh
echo "$@" >> "{log}"
case "$1" in
  venv) for last; do :; done; mkdir -p "$last/bin"; printf '#!/bin/sh\\nexit 0\\n' > "$last/bin/python"
        chmod +x "$last/bin/python";;
  pip) case "$*" in *{fails}*) exit 3;; esac;;
esac
"""


class Uv:
    """A shell script in uv's place: notes its calls, makes an empty environment, fails on demand."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "uv"
        self.log = folder / "calls"
        self.log.touch()
        self.fail_on("no-call-has-this")

    def fail_on(self, word: str) -> None:
        self.path.write_text(FAKE_UV.format(log=self.log, fails=word))
        self.path.chmod(0o755)

    @property
    def installed(self) -> list[str]:
        lines = self.log.read_text().splitlines()
        return [Path(line.split()[-1]).name for line in lines if line.startswith("pip")]


@pytest.fixture
def uv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Uv:
    stand_in = Uv(tmp_path)
    monkeypatch.setenv("UV", str(stand_in.path))
    monkeypatch.setenv("TESSERA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TESSERA_ENGINE_PYTHON", raising=False)
    return stand_in


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def cpu_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The index of CPU builds answers."""
    monkeypatch.setattr(install, "index_answers", lambda: True)


@pytest.fixture
def no_cpu_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "index_answers", lambda: False)


@pytest.mark.usefixtures("cpu_index")
def test_the_cpu_build_is_taken_where_its_index_answers(uv: Uv, said: list[str]) -> None:
    assert install_engine(said.append) == environment_folder() / "bin" / "python"
    assert uv.installed == ["torch-cpu.txt", "requirements.txt", "vllm.txt"]
    calls = uv.log.read_text()
    assert calls.count("--require-hashes") == calls.count("--no-deps") == 3
    assert any("MB" in line for line in said)


@pytest.mark.usefixtures("no_cpu_index")
def test_pypis_build_is_taken_elsewhere(uv: Uv, said: list[str]) -> None:
    install_engine(said.append)
    assert uv.installed == ["torch.txt", "requirements.txt", "vllm.txt"]


@pytest.mark.usefixtures("cpu_index")
def test_a_cpu_build_that_does_not_come_is_replaced_by_pypis(uv: Uv, said: list[str]) -> None:
    uv.fail_on("torch-cpu")
    install_engine(said.append)
    assert uv.installed == ["torch-cpu.txt", "torch.txt", "requirements.txt", "vllm.txt"]
    assert any("PyPI's build instead" in line for line in said)


@pytest.mark.usefixtures("no_cpu_index")
def test_a_second_call_finds_it_installed(uv: Uv, said: list[str]) -> None:
    first = install_engine(said.append)
    said.clear()
    assert install_engine(said.append) == first
    assert said == []
    assert len(uv.installed) == 3


@pytest.mark.usefixtures("no_cpu_index")
def test_a_failure_leaves_nothing_that_looks_installed_and_the_next_try_starts_clean(
    uv: Uv, said: list[str]
) -> None:
    uv.fail_on("vllm.txt")
    with pytest.raises(EngineUnavailable, match="status 3"):
        install_engine(said.append)
    assert engine_python() is None
    leftover = environment_folder().with_suffix(".building") / "half"
    leftover.touch()
    uv.fail_on("no-call-has-this")
    assert install_engine(said.append).exists()
    assert not (environment_folder() / "half").exists()


def test_no_room_is_said_before_anything_is_fetched(
    uv: Uv, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "index_answers", lambda: False)
    monkeypatch.setattr(install, "SPACE_BYTES", {False: 10**18, True: 10**18})
    with pytest.raises(EngineUnavailable, match="TESSERA_CACHE_DIR"):
        install_engine(said.append)
    assert uv.installed == []


def test_a_named_engine_that_is_not_there_is_never_replaced_in_silence(
    uv: Uv, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_ENGINE_PYTHON", "/nowhere/python")
    with pytest.raises(EngineUnavailable, match="/nowhere/python"):
        install_engine(said.append)
    assert uv.installed == []


def test_without_uv_the_sentence_says_how_to_get_it(
    uv: Uv, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("UV")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    uv.path.unlink()
    with pytest.raises(EngineUnavailable, match="pip install uv"):
        install.uv_command()


def test_two_installers_take_turns(tmp_path: Path) -> None:
    lock, order, said = tmp_path / "x.lock", [], []
    inside, waiting = threading.Event(), threading.Event()

    def say(text: str) -> None:
        said.append(text)
        waiting.set()

    def second() -> None:
        inside.wait()
        with one_installer(lock, say):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with one_installer(lock, said.append):
        inside.set()
        assert waiting.wait(10)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]
    assert "waiting" in said[0]
