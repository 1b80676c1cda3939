from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from controlplane.routes import routes, served_version
from serving.contracts import Price
from serving.selectors.fleet import PlacedVersion


def placed(
    version: int,
    *,
    wanted: bool = False,
    proven: bool = False,
    pool: int = 1,
    deployment: int = 1,
    slug: str = "support",
) -> PlacedVersion:
    return PlacedVersion(
        organization_id=UUID(int=1),
        project_id=UUID(int=2),
        deployment_id=UUID(int=deployment),
        slug=slug,
        created_at=datetime(2026, 11, 21, tzinfo=UTC),
        version_id=UUID(int=version),
        is_wanted=wanted,
        adapter=f"adapter-{version}",
        digest=str(version),
        pool_id=UUID(int=pool),
        proven=proven,
    )


@pytest.mark.parametrize(
    ("placements", "served"),
    [
        ([placed(1, wanted=True)], 1),  # nothing answers: the name is there all the same
        ([placed(1, wanted=True, proven=True)], 1),
        ([placed(1, proven=True), placed(2, wanted=True)], 1),
        ([placed(1, proven=True), placed(2, wanted=True, proven=True)], 2),
        ([placed(1), placed(2, wanted=True)], 2),
        ([placed(1, proven=True), placed(2, proven=True), placed(3, wanted=True)], 2),
        ([placed(1, wanted=True), placed(2, proven=True)], 2),  # led back, not proven there yet
        ([placed(1)], 1),
    ],
)
def test_which_version_answers(placements: list[PlacedVersion], served: int) -> None:
    assert {one.version_id.int for one in served_version(placements)} == {served}


def test_one_route_for_each_deployment_with_all_weight_on_one_version() -> None:
    found = routes(
        [
            placed(1, wanted=True, pool=1),
            placed(1, wanted=True, pool=2),
            placed(5, wanted=True, deployment=2, slug="legal"),
        ],
        {},
    )
    assert [route.name for route in found] == ["support", "legal"]
    [arm] = found[0].arms
    assert (arm.weight, len(arm.pools), arm.version) == (10_000, 2, str(UUID(int=1)))


def test_the_same_rows_make_the_same_routes_in_any_order() -> None:
    rows = [placed(n, wanted=True, deployment=n) for n in range(1, 6)]
    assert routes(rows, {}) == routes(reversed(rows), {})


def test_a_route_costs_what_its_pool_costs_and_nothing_is_made_up() -> None:
    price = Price(version="v", input=1, cached_input=2, output=3)
    rows = [placed(1, wanted=True, pool=1), placed(2, wanted=True, deployment=2, pool=2)]
    found = routes(rows, {UUID(int=1): price})
    assert [route.price for route in found] == [price, None]
