"""The folder called ``platform`` must not hide Python's own module."""

from __future__ import annotations

import platform
import sysconfig
from pathlib import Path

import kernel


def test_platform_is_still_the_standard_librarys() -> None:
    standard = Path(sysconfig.get_path("stdlib")).resolve()
    assert standard in Path(platform.__file__).resolve().parents
    assert platform.python_version()


def test_our_platform_folder_is_no_package() -> None:
    folder = Path(kernel.__file__).parents[1]
    assert folder.name == "platform"
    assert not (folder / "__init__.py").exists()
    assert not list(folder.glob("conftest.py")) + list(folder.glob("test_*.py"))


def test_importing_the_control_plane_runs_nothing() -> None:
    assert (Path(kernel.__file__).parents[1] / "controlplane" / "__init__.py").read_text() == ""
