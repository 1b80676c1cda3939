from __future__ import annotations

from django.urls import path

from billing import api

urlpatterns = [
    path("usage", api.UsageView.as_view()),
    path("prices", api.PricesView.as_view()),
    path("balance", api.BalanceView.as_view()),
    path("balance/entries", api.BalanceEntriesView.as_view()),
]
