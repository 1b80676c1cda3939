"""The demo's base model: what is taken, and what is refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from controlplane.engine import base
from controlplane.engine.base import MANIFEST, demo_base, file_digests
from controlplane.engine.environment import EngineUnavailable
from controlplane.engine.install import Report


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TESSERA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("TESSERA_DEMO_BASE", raising=False)
    monkeypatch.delenv("TESSERA_ENGINE_PYTHON", raising=False)
    return tmp_path / "cache"


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_a_folder_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "My Model")
    monkeypatch.setenv("TESSERA_DEMO_BASE", str(folder))
    found = demo_base(print)
    assert (found.name, found.folder) == ("my-model", folder)
    assert set(found.files) == {"config.json", "tokenizer.json", "model.safetensors"}


def test_the_digest_names_the_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_model(tmp_path / "model")
    monkeypatch.setenv("TESSERA_DEMO_BASE", str(folder))
    before = demo_base(print).digest
    (folder / ".hidden").touch()
    assert demo_base(print).digest == before
    (folder / "model.safetensors").write_text("other")
    assert demo_base(print).digest != before


def test_a_folder_without_a_model_is_refused_by_what_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TESSERA_DEMO_BASE", str(tmp_path))
    with pytest.raises(
        EngineUnavailable, match=r"no config\.json, tokenizer\.json, \*\.safetensors"
    ):
        demo_base(print)


def test_neither_folder_nor_model_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TESSERA_DEMO_BASE", "/nowhere/at all")
    with pytest.raises(EngineUnavailable, match="neither a folder nor a name"):
        demo_base(print)


def test_without_the_engine_there_is_no_base() -> None:
    with pytest.raises(EngineUnavailable, match="engine_install"):
        demo_base(print)


def test_a_cached_model_is_used_while_every_file_is_what_it_was(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_model(cache / "base-smollm2-135m-instruct")
    (folder / MANIFEST).write_text(json.dumps(file_digests(folder)))
    assert demo_base(print).folder == folder
    made: list[str] = []

    def bring(model: str, folder: Path, report: Report) -> None:
        made.append(model)
        folder.rmdir()
        write_model(folder)

    monkeypatch.setattr(base, "_bring", bring)
    (folder / "model.safetensors").write_text("damaged")
    again = demo_base(print)
    assert made == ["smollm2-135m-instruct"]
    assert (again.folder / "model.safetensors").read_text() == "model.safetensors"
