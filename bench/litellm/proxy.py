"""LiteLLM's proxy, one worker, with the least it can be run with: a master key and nothing else.

No database, no budgets, no limits, no log: what it costs here is its floor. Its packages are
wheels pinned by hash, in an environment that only this benchmark starts a process from; where they
cannot be had the reference is left out, and said so.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.nginx import free_port, is_listening
from bench.processes import descendants, running

LOCK = Path(__file__).with_name("requirements.txt")
KEY = "sk-bench"
_INSTALL_SECONDS = 600
_MARK = "installed"


class NotInstalled(Exception):
    """The reference cannot be had here; the text says why in one line."""


@dataclass(frozen=True, slots=True)
class LiteLlm:
    address: str
    pids: tuple[int, ...]
    version: str


def install(cache: Path | None = None) -> Path:
    """The environment's folder, made on first use. Raises ``NotInstalled``."""
    digest = hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]
    home = (cache or _cache()) / f"litellm-{digest}"
    if not (home / _MARK).exists():
        shutil.rmtree(home, ignore_errors=True)
        _uv("venv", "--quiet", "--python", "3.11", str(home))
        _uv("pip", "sync", "--quiet", "--require-hashes", "--only-binary", ":all:",
            "--python", str(home), str(LOCK))  # fmt: skip
        _refuse_startup_code(home)
        (home / _MARK).touch()
    return home


@contextmanager
def proxy(
    home: Path, *, folder: Path, engine: str, engine_key: str, models: Sequence[str]
) -> Iterator[LiteLlm]:
    """The proxy in front of the engine at ``engine`` (``http://...``)."""
    folder.mkdir()
    port = free_port()
    settings = folder / "config.yaml"  # JSON is YAML, too
    settings.write_text(json.dumps(_settings(engine, engine_key, models)))
    argv = [str(home / "bin" / "litellm"), "--config", str(settings), "--host", "127.0.0.1"]
    argv += ["--port", str(port), "--num_workers", "1"]
    with running(
        argv,
        log=folder / "log",
        ready=lambda: is_listening(port),
        environment=_environment(folder),
        cwd=folder,
        seconds=120,
    ) as process:
        yield LiteLlm(f"http://127.0.0.1:{port}", tuple(descendants(process.pid)), _version(home))


def _settings(engine: str, engine_key: str, models: Sequence[str]) -> dict[str, object]:
    return {
        "model_list": [
            {
                "model_name": model,
                "litellm_params": {
                    "model": f"openai/{model}",
                    "api_base": f"{engine}/v1",
                    "api_key": engine_key,
                },
            }
            for model in models
        ],
        "general_settings": {"master_key": KEY, "disable_spend_logs": True},
        "litellm_settings": {"telemetry": False, "request_timeout": 600},
    }


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of ours: no keys, no addresses, a home of its own."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches its price list from the net
    }


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tessera"


def _uv(*arguments: str) -> None:
    uv = os.environ.get("UV") or shutil.which("uv") or str(_cache() / "uv" / "bin" / "uv")
    try:
        done = subprocess.run(
            [uv, *arguments], capture_output=True, text=True, check=False, timeout=_INSTALL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalled(f"{uv}: {type(error).__name__}") from error
    if done.returncode:
        raise NotInstalled((done.stderr.strip().splitlines() or ["no reason given"])[-1])


def _refuse_startup_code(home: Path) -> None:
    """A ``.pth`` file that imports runs at every start: that is how the stolen releases worked."""
    for path in home.glob("lib/python*/site-packages/*.pth"):
        lines = path.read_text(errors="replace").splitlines()
        if path.name != "_virtualenv.pth" and any(line.startswith("import") for line in lines):
            raise NotInstalled(f"{path.name} would run code at every start")


def _version(home: Path) -> str:
    found = list(home.glob("lib/python*/site-packages/litellm-*.dist-info"))
    return f"LiteLLM {found[0].name.split('-')[1].removesuffix('.dist')}" if found else "LiteLLM"
