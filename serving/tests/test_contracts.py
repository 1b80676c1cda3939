"""Documents that gateways join: signed, versioned, believed only whole."""

from __future__ import annotations

import msgspec
import pytest

from kernel.errors import Invalid
from serving import contracts
from serving.contracts import EndpointsDocument, RoutesDocument, SignedDocument, open_document, sign

KEY = bytes(32)
ROUTES = RoutesDocument(cell="local", pools=(), routes=())


def sealed(**changes: object) -> bytes:
    signed = sign(ROUTES, key=KEY, sequence=7, issued_at=1.5)
    return msgspec.json.encode(msgspec.structs.replace(signed, **changes))


@pytest.mark.parametrize("document", [ROUTES, EndpointsDocument(cluster="local", endpoints=())])
def test_what_was_signed_is_what_is_read(document: RoutesDocument | EndpointsDocument) -> None:
    raw = msgspec.json.encode(sign(document, key=KEY, sequence=7, issued_at=1.5))
    signed, opened = open_document(raw, key=KEY)
    assert (signed.sequence, signed.issued_at, opened) == (7, 1.5, document)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "endpoints"},
        {"scope": "elsewhere"},
        {"sequence": 8},
        {"issued_at": 2.5},
        {"version": contracts.CONTRACT_VERSION - 1},
        {"body": "{}"},
        {"mac": "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_field_can_be_changed(change: dict[str, object]) -> None:
    with pytest.raises(Invalid) as refusal:
        open_document(sealed(**change), key=KEY)
    assert refusal.value.rule == "document_signature"


def test_another_key_opens_nothing() -> None:
    with pytest.raises(Invalid) as refusal:
        open_document(sealed(), key=bytes(31) + b"x")
    assert refusal.value.rule == "document_signature"


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"kind":"routes"}'])
def test_anything_else_is_refused(raw: bytes) -> None:
    with pytest.raises(Invalid) as refusal:
        open_document(raw, key=KEY)
    assert refusal.value.rule == "document_shape"


def test_the_version_before_is_readable_and_the_one_after_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def written_by(version: int) -> bytes:
        with monkeypatch.context() as patch:
            patch.setattr(contracts, "CONTRACT_VERSION", version)
            return msgspec.json.encode(sign(ROUTES, key=KEY, sequence=1, issued_at=0))

    signed, _ = open_document(written_by(contracts.CONTRACT_VERSION - 1), key=KEY)
    assert isinstance(signed, SignedDocument)
    with pytest.raises(Invalid) as refusal:
        open_document(written_by(contracts.CONTRACT_VERSION + 1), key=KEY)
    assert refusal.value.rule == "document_version"


def test_engine_keys_differ_by_replica_and_secret() -> None:
    keys = {
        contracts.engine_api_key(secret, replica)
        for secret in (b"a" * 32, b"b" * 32)
        for replica in ("one", "two")
    }
    assert len(keys) == 4
