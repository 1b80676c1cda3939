"""From rows to the routes document: what each customer's model name leads to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from itertools import groupby
from uuid import UUID

from controlplane.prices import route_prices
from serving.contracts import Arm, Pool, Price, Route, RoutesDocument
from serving.models import Pool as PoolRow
from serving.selectors import fleet
from serving.selectors.fleet import PlacedVersion

FULL_WEIGHT = 10_000


def routes_document(cell: str, *, at: datetime) -> RoutesDocument:
    """Every deployment of a cell that should be running, also while nothing answers for it yet.

    A name that exists but has no engine or no price is 503 at the gateway, not 404. Prices are
    those of the instant ``at``. Needs the platform's scope.
    """
    pools = fleet.pool_list_of_cell(cell)
    by_base = route_prices(at)
    prices = {row.id: by_base[row.base.slug] for row in pools if row.base.slug in by_base}
    return RoutesDocument(
        cell=cell,
        pools=tuple(_pool(row) for row in pools),
        routes=tuple(routes(fleet.placed_versions(cell), prices)),
    )


def routes(placed: Iterable[PlacedVersion], prices: Mapping[UUID, Price]) -> list[Route]:
    """One route per deployment, ordered by deployment; ``prices`` by pool."""
    ordered = sorted(placed, key=lambda placement: str(placement.deployment_id))
    grouped = groupby(ordered, key=lambda placement: placement.deployment_id)
    return [_route(list(placements), prices) for _, placements in grouped]


def served_version(placements: list[PlacedVersion]) -> list[PlacedVersion]:
    """The placements of the one version that answers.

    That is the wanted one as soon as it is proven somewhere. Until then an earlier one that is
    proven goes on answering; where none is, the wanted one is named all the same.
    """
    wanted = [placement for placement in placements if placement.is_wanted]
    proven = [placement for placement in placements if placement.proven]
    if any(placement.is_wanted for placement in proven) or not proven:
        return wanted or placements[-1:]
    newest = proven[-1].version_id
    return [placement for placement in placements if placement.version_id == newest]


def _route(placements: list[PlacedVersion], prices: Mapping[UUID, Price]) -> Route:
    served = served_version(placements)
    first = served[0]
    return Route(
        organization=str(first.organization_id),
        project=str(first.project_id),
        name=first.slug,
        deployment=str(first.deployment_id),
        created=int(first.created_at.timestamp()),
        arms=(
            Arm(
                version=str(first.version_id),
                adapter=first.adapter,
                digest=first.digest,
                weight=FULL_WEIGHT,
                arm="stable",
                pools=tuple(str(placement.pool_id) for placement in served),
            ),
        ),
        price=prices.get(first.pool_id),
    )


def _pool(row: PoolRow) -> Pool:
    return Pool(
        id=str(row.id),
        cluster=row.cluster.name,
        base=row.base.served_name,
        context_tokens=row.base.context_tokens,
        default_output_tokens=row.base.default_output_tokens,
        slots_per_replica=row.slots_per_replica,
    )
