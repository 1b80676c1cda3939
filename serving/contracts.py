"""What the control plane publishes and the data plane reads: frozen, versioned, signed.

Three families of values cross process borders here:

* *routes*, one document per cell: what a customer's model name leads to;
* *endpoints*, one document per cluster: which engine incarnations answer, and what is proven to be
  on them;
* *agent messages*: what an engine agent should have loaded, and what it reports back.

A document travels as a ``SignedDocument``. A reader accepts ``CONTRACT_VERSION`` and the one before
it, refuses a bad signature, and never goes back to a lower sequence. Readers join routes and
endpoints by pool id.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Literal

import msgspec

from kernel.errors import Invalid

CONTRACT_VERSION = 2
READABLE_VERSIONS = frozenset({CONTRACT_VERSION - 1, CONTRACT_VERSION})

Kind = Literal["routes", "endpoints"]


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """Where a base model is served: what the gateway must know to size and send a request."""

    id: str
    cluster: str
    base: str  # the engine's own name of the base model; never a customer's name
    context_tokens: int
    default_output_tokens: int
    slots_per_replica: int
    wakes: bool = False  # rests at zero replicas: who waits for it makes it start


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What a token of each class costs, in nano-USD. ``version`` names the row for ever."""

    version: str
    input: int
    cached_input: int
    output: int


class Arm(msgspec.Struct, frozen=True, kw_only=True):
    """One version behind a model name and its share of the traffic, in ten-thousandths."""

    version: str
    adapter: str  # the engine's name of the adapter, ``<org>--<deployment>--<digest12>``
    digest: str  # SHA-256 of the artifact; residency is matched on name and digest
    weight: int
    arm: str  # "stable", "candidate", "shadow"
    pools: tuple[str, ...]


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """What ``(organization, project, name)`` leads to. Weights of all arms add up to 10,000."""

    organization: str
    project: str
    name: str
    deployment: str
    created: int  # seconds since the epoch, shown in /v1/models
    arms: tuple[Arm, ...]
    rollout: str | None = None
    subject: str = "key"  # what a sticky choice is hashed on
    hash_salt: str = ""
    price: Price | None = None  # without one nothing is served: what it costs cannot be held


class RoutesDocument(msgspec.Struct, frozen=True, kw_only=True):
    cell: str
    pools: tuple[Pool, ...]
    routes: tuple[Route, ...]


class ResidentAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that is proven, on one incarnation, to change the base model's output."""

    name: str
    digest: str


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One start of one engine. ``address`` is ``unix:<path>`` or ``http://host:port``."""

    pool: str
    replica: str
    incarnation: str
    address: str
    slots: int
    adapters: tuple[ResidentAdapter, ...]


class EndpointsDocument(msgspec.Struct, frozen=True, kw_only=True):
    cluster: str
    endpoints: tuple[Endpoint, ...]


class SignedDocument(msgspec.Struct, frozen=True, kw_only=True):
    """Envelope: ``body`` is the document's JSON text, ``mac`` covers every other field."""

    kind: Kind
    scope: str  # the cell of a routes document, the cluster of an endpoints document
    version: int
    sequence: (
        int  # grows with every change of this kind and scope; from PostgreSQL, so it survives Redis
    )
    issued_at: float
    body: str
    mac: str


class WantedAdapter(msgspec.Struct, frozen=True, kw_only=True):
    """An adapter that an engine should hold; ``files`` maps file name to its SHA-256."""

    name: str
    digest: str
    files: dict[str, str]


class AgentOrders(msgspec.Struct, frozen=True, kw_only=True):
    """The control plane's answer to an agent's long poll; ``etag`` names this list for the next."""

    version: int
    etag: str
    replica: str
    base: str
    adapters: tuple[WantedAdapter, ...]


AdapterState = Literal["fetching", "loading", "proven", "no_effect", "failed"]


class AdapterReport(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    digest: str
    state: AdapterState
    reason: str = ""  # one sentence for the tenant, set where the state is not a good one


class AgentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is true on one incarnation now; replaces every earlier report of the same replica."""

    version: int
    replica: str
    incarnation: str
    address: str
    state: Literal["starting", "ready", "failing", "gone"]
    reason: str = ""
    adapters: tuple[AdapterReport, ...] = ()


def sign(
    document: RoutesDocument | EndpointsDocument, *, key: bytes, sequence: int, issued_at: float
) -> SignedDocument:
    """Put a document in its signed envelope."""
    kind: Kind = "routes" if isinstance(document, RoutesDocument) else "endpoints"
    scope = document.cell if isinstance(document, RoutesDocument) else document.cluster
    unsigned = SignedDocument(
        kind=kind,
        scope=scope,
        version=CONTRACT_VERSION,
        sequence=sequence,
        issued_at=float(issued_at),  # read back as one, so signed as one
        body=msgspec.json.encode(document).decode(),
        mac="",
    )
    return msgspec.structs.replace(unsigned, mac=_mac(key, unsigned))


def open_document(
    raw: bytes, *, key: bytes
) -> tuple[SignedDocument, RoutesDocument | EndpointsDocument]:
    """Check and decode an envelope.

    Raises ``Invalid`` for anything but a document of a readable version signed with ``key``.
    """
    try:
        signed = msgspec.json.decode(raw, type=SignedDocument)
    except msgspec.DecodeError as error:
        raise Invalid("Not a signed document.", rule="document_shape") from error
    if not hmac.compare_digest(_mac(key, signed), signed.mac):
        raise Invalid("The document's signature is wrong.", rule="document_signature")
    if signed.version not in READABLE_VERSIONS:
        raise Invalid(
            f"Contract version {signed.version} is not readable.", rule="document_version"
        )
    try:
        if signed.kind == "routes":
            return signed, msgspec.json.decode(signed.body, type=RoutesDocument)
        return signed, msgspec.json.decode(signed.body, type=EndpointsDocument)
    except msgspec.DecodeError as error:
        raise Invalid("The document's body has the wrong shape.", rule="document_shape") from error


def document_key(kind: Kind, scope: str) -> str:
    """Where a document lies in Redis."""
    return f"tessera:doc:{kind}:{scope}"


def cell_stream(cell: str) -> str:
    """The Redis stream on which a cell's gateways hear of new documents and revoked keys.

    Entries have a field ``kind``: ``routes``, ``endpoints`` (with ``scope``), or ``revoked`` (with
    ``key_id``).
    """
    return f"tessera:push:{cell}"


def engine_api_key(secret: bytes, replica: str) -> str:
    """The key an engine replica asks for; derived, so that no document carries it."""
    return hmac.new(secret, f"engine:{replica}".encode(), hashlib.sha256).hexdigest()


def _mac(key: bytes, signed: SignedDocument) -> str:
    """HMAC-SHA256 over every field but ``mac``."""
    text = msgspec.json.encode(msgspec.structs.astuple(signed)[:-1])
    return hmac.new(key, text, hashlib.sha256).hexdigest()
