from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel.errors import Forbidden, Invalid
from serving.artifacts.tests.adapters import safetensors
from serving.models import BaseModel
from serving.services import base_model_register
from tenants.access import Caller
from tenants.models import AuditEvent, Role
from tenants.scope import platform_scope
from tenants.tests.factories import caller_of, make_organization

pytestmark = pytest.mark.django_db
SYSTEM = Caller.system("test")


def folder_of(path: Path, *, longest: int = 8192) -> Path:
    """A base model's folder with one linear module that adapters may change, and one other."""
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": longest}))
    tensors = {
        "model.embed_tokens.weight": ("BF16", [4, 2], b"\x01" * 16),
        "model.layers.0.self_attn.q_proj.weight": ("BF16", [2, 3], b"\x01" * 12),
    }
    (path / "model.safetensors").write_bytes(safetensors(tensors))
    return path


def register(folder: Path) -> BaseModel:
    return base_model_register(folder, slug="tiny", name="Tiny", caller=SYSTEM)


def test_modules_and_context_are_read_from_the_models_own_files(tmp_path: Path) -> None:
    register(folder_of(tmp_path / "a", longest=512))
    base = BaseModel.objects.get()
    assert base.modules == {"model.layers.0.self_attn.q_proj": [2, 3]}
    assert (base.context_tokens, base.served_name) == (512, "tiny")


def test_registering_the_same_again_changes_nothing(tmp_path: Path) -> None:
    first, again = (register(folder_of(tmp_path / "a")) for _ in range(2))
    assert first.id == again.id
    with platform_scope():
        assert AuditEvent.objects.filter(target_type="basemodel").count() == 1


def test_the_same_bytes_may_move_to_another_folder(tmp_path: Path) -> None:
    register(folder_of(tmp_path / "a"))
    register(folder_of(tmp_path / "b"))
    assert BaseModel.objects.get().folder == str(tmp_path / "b")


def test_a_slug_keeps_its_bytes(tmp_path: Path) -> None:
    register(folder_of(tmp_path / "a"))
    with pytest.raises(Invalid, match="new slug"):
        register(folder_of(tmp_path / "b", longest=100))


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"config\.json"):
        register(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(Invalid, match="safetensors"):
        register(tmp_path)


def test_tenants_do_not_write_the_catalogue(tmp_path: Path) -> None:
    caller = caller_of(make_organization(), Role.OWNER)
    with pytest.raises(Forbidden):
        base_model_register(folder_of(tmp_path / "a"), slug="tiny", name="Tiny", caller=caller)
