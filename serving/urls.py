from __future__ import annotations

from django.urls import path

from serving import api

urlpatterns = [
    path("base-models", api.BaseModelsView.as_view()),
    path("artifacts", api.ArtifactsView.as_view()),
    path("artifacts/<uuid:artifact>", api.ArtifactDetailView.as_view()),
    path(
        "artifacts/<uuid:artifact>/files/<str:name>/parts/<int:number>",
        api.ArtifactPartView.as_view(),
    ),
    path("artifacts/<uuid:artifact>/complete", api.ArtifactCompletionView.as_view()),
    path("models", api.VersionsView.as_view()),
    path("models/<uuid:version>", api.VersionDetailView.as_view()),
    path("deployments", api.DeploymentsView.as_view()),
    path("deployments/<uuid:deployment>", api.DeploymentDetailView.as_view()),
]
