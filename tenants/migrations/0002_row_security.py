"""Who may do what in the database: grants, row-level security, references inside one organization, the append-only record."""

from django.db import migrations

from tenants.rls import append_only, enable_row_security, organization_key, same_organization

GRANTS = [
    "GRANT USAGE ON SCHEMA public TO tessera_app",
    "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO tessera_app",
    "GRANT USAGE, SELECT ON ALL SEQUENCES IN SCHEMA public TO tessera_app",
    # And whatever later migrations create.
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tessera_app",
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO tessera_app",
    "ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",
    "REVOKE INSERT, UPDATE, DELETE ON django_migrations FROM tessera_app",
]

REFUSE_CHANGE = """
CREATE FUNCTION tessera_refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'rows of % are only ever added', TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END
$$
"""


class Migration(migrations.Migration):
    dependencies = [
        ("tenants", "0001_organizations_people_keys"),
        ("admin", "0003_logentry_add_action_flag_choices"),
        ("sessions", "0001_initial"),
        ("account", "0001_initial"),
    ]

    operations = [
        migrations.RunSQL(GRANTS, migrations.RunSQL.noop),
        migrations.RunSQL(REFUSE_CHANGE, "DROP FUNCTION tessera_refuse_change()"),
        organization_key("tenants_project"),
        same_organization("tenants_quota", "project_id", "tenants_project"),
        same_organization("tenants_apikey", "project_id", "tenants_project"),
        enable_row_security("tenants_organization", "id"),
        enable_row_security("tenants_project"),
        enable_row_security("tenants_quota"),
        enable_row_security("tenants_membership"),
        enable_row_security("tenants_apikey"),
        enable_row_security("tenants_auditevent"),
        append_only("tenants_auditevent"),
    ]
