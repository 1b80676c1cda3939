"""The REST API's description in the repository is the one that the code gives."""

from __future__ import annotations

from pathlib import Path

from django.core.management import call_command

KEPT = Path(__file__).parents[1] / "reference" / "openapi.yaml"


def test_the_description_is_the_one_the_code_gives(tmp_path: Path) -> None:
    made = tmp_path / "openapi.yaml"
    call_command("spectacular", "--validate", "--fail-on-warn", "--file", str(made))
    assert made.read_text() == KEPT.read_text(), (
        "The REST API has changed: run "
        "`.venv/bin/python manage.py spectacular --file docs/reference/openapi.yaml`"
    )
