"""Tenants' rows stay in their organization: policies, and references that cannot cross."""

from django.db import migrations
from tenants.rls import enable_row_security, organization_key, same_organization


class Migration(migrations.Migration):
    dependencies = [("serving", "0001_catalogue_artifacts_deployments_fleet")]

    operations = [
        organization_key("serving_artifact"),
        organization_key("serving_artifactfile"),
        organization_key("serving_modelversion"),
        organization_key("serving_deployment"),
        same_organization("serving_artifact", "project_id", "tenants_project"),
        same_organization("serving_artifactfile", "artifact_id", "serving_artifact"),
        same_organization("serving_artifactpart", "file_id", "serving_artifactfile"),
        same_organization("serving_modelversion", "project_id", "tenants_project"),
        same_organization("serving_modelversion", "artifact_id", "serving_artifact"),
        same_organization("serving_deployment", "project_id", "tenants_project"),
        same_organization("serving_deployment", "version_id", "serving_modelversion"),
        same_organization("serving_placement", "deployment_id", "serving_deployment"),
        same_organization("serving_placement", "version_id", "serving_modelversion"),
        enable_row_security("serving_artifact"),
        enable_row_security("serving_artifactfile"),
        enable_row_security("serving_artifactpart"),
        enable_row_security("serving_modelversion"),
        enable_row_security("serving_deployment"),
        enable_row_security("serving_placement"),
    ]
