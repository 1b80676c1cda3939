import pytest
from django.core.management import call_command


@pytest.mark.django_db(databases=["default", "owner"])
def test_models_and_migrations_agree() -> None:
    call_command("makemigrations", "billing", check=True, dry_run=True, verbosity=0)
