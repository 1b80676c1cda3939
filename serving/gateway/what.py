"""What a model name leads to, for one key. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

from serving.contracts import (
    Arm,
    Endpoint,
    EndpointsDocument,
    Pool,
    Price,
    Route,
    RoutesDocument,
)
from serving.gateway.errors import GatewayError, ModelNotFound
from serving.gateway.principals import Principal
from serving.gateway.refusals import NO_PRICE, NOT_READY, refusal

WHOLE = 10_000  # the sum of a route's weights


class Target(Struct, frozen=True):
    """Where one request may go: one version, in one pool, under the engine's name for it."""

    route: Route
    arm: Arm
    pool: Pool
    price: Price


class Directory:
    """Routes and endpoints joined by pool, indexed for lookup. Immutable once built."""

    def __init__(
        self, routes: RoutesDocument | None, endpoints: Iterable[EndpointsDocument]
    ) -> None:
        self.pools: Mapping[str, Pool] = {pool.id: pool for pool in routes.pools} if routes else {}
        self._routes: dict[tuple[str, str, str], Route] = {}
        self._by_project: dict[tuple[str, str], list[Route]] = {}
        for route in routes.routes if routes else ():
            self._routes[route.organization, route.project, route.name] = route
            self._by_project.setdefault((route.organization, route.project), []).append(route)
        self.endpoints: dict[str, list[Endpoint]] = {}
        self._slots: Counter[str] = Counter()
        for document in endpoints:
            for endpoint in document.endpoints:
                self.endpoints.setdefault(endpoint.pool, []).append(endpoint)
                self._slots[endpoint.pool] += endpoint.slots

    def route(self, principal: Principal, name: str) -> Route:
        """Raises ``ModelNotFound``, the same for absent, foreign and not allowed."""
        found = self._routes.get((principal.organization, principal.project, name))
        if found is None or (principal.models and name not in principal.models):
            raise ModelNotFound(name)
        return found

    def routes_for(self, principal: Principal) -> list[Route]:
        """What the key may call, by name."""
        routes = self._by_project.get((principal.organization, principal.project), ())
        allowed = [r for r in routes if not principal.models or r.name in principal.models]
        return sorted(allowed, key=lambda route: route.name)

    def slots(self, pool: str) -> int:
        """What the pool's ready replicas offer together."""
        return self._slots[pool]

    def target(self, principal: Principal, name: str) -> Target:
        """Raises ``ModelNotFound``; ``Busy`` without a price, and while nothing can answer.

        A pool with replicas goes before one that rests and would have to wake.
        """
        route = self.route(principal, name)
        if route.price is None:
            raise refusal(NO_PRICE, model=name)
        arm = choose_arm(route, principal)
        pools = [self.pools[pool] for pool in arm.pools if pool in self.pools]
        awake = (pool for pool in pools if self.endpoints.get(pool.id))
        found = next(awake, None) or next((pool for pool in pools if pool.wakes), None)
        if found is None:
            raise not_ready(name)
        return Target(route, arm, found, route.price)


def choose_arm(route: Route, principal: Principal) -> Arm:
    """Sticky by the route's subject: who met a version meets it again while weights stand."""
    if len(route.arms) == 1:
        return route.arms[0]
    serving = [arm for arm in route.arms if arm.weight > 0]
    point = _point(route, principal)
    for arm in serving:
        point -= arm.weight
        if point < 0:
            return arm
    raise ModelNotFound(route.name)


def not_ready(name: str) -> GatewayError:
    return refusal(NOT_READY, model=name)


def _point(route: Route, principal: Principal) -> int:
    subjects = {
        "key": principal.key_id,
        "project": principal.project,
        "organization": principal.organization,
    }
    text = f"{route.hash_salt}:{subjects.get(route.subject, principal.key_id)}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") % WHOLE
