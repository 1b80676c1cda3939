"""Checked files in S3, or in any store that speaks it: the only door to boto3.

Objects have the names that ``FolderStore`` gives them, so that copying the folder moves an
installation. Whatever the store does, ``NotFound`` or ``Unavailable`` is what comes out of here;
the log says what it was.
"""

from __future__ import annotations

import io
import logging
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from boto3.s3.transfer import TransferConfig, create_transfer_manager
from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from kernel.errors import NotFound, Unavailable
from serving.artifacts.store import NO_SUCH_OBJECT, object_name

CONNECT_SECONDS = 3.0
READ_SECONDS = 15.0
ATTEMPTS = 3
PART_BYTES = 16 << 20
LARGEST_WHOLE_BYTES = 4 * PART_BYTES
READ_AHEAD_BYTES = 1 << 20

_IN_PARTS = TransferConfig(
    multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
)

_BUCKET = (
    "The object store does not have the bucket that AWS_STORAGE_BUCKET_NAME names. Make it, or "
    "correct the name."
)
_REFUSED = (
    "The object store refuses us. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY must belong to "
    "somebody who may list, read, write and delete in the bucket AWS_STORAGE_BUCKET_NAME."
)
_REGION = "The object store's bucket is in another region than AWS_REGION says."
_SILENT = (
    "The object store does not answer; try again shortly. If it stays so, see whether "
    "AWS_ENDPOINT_URL_S3 is its address."
)
_FAILED = "The object store failed, and the server's log says how. Try again shortly."

# By the store's own code, or by the name of boto3's exception. An answer to HEAD has no code but
# its status.
_SENTENCES = {
    "404": _BUCKET,
    "InvalidBucketName": _BUCKET,
    "NoSuchBucket": _BUCKET,
    "ParamValidationError": _BUCKET,  # no bucket can be called so
    "401": _REFUSED,
    "403": _REFUSED,
    "AccessDenied": _REFUSED,
    "ExpiredToken": _REFUSED,
    "InvalidAccessKeyId": _REFUSED,
    "InvalidToken": _REFUSED,
    "NoCredentialsError": _REFUSED,
    "PartialCredentialsError": _REFUSED,
    "SignatureDoesNotMatch": _REFUSED,
    "301": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "InvalidRegionError": _REGION,
    "PermanentRedirect": _REGION,
    "ConnectTimeoutError": _SILENT,
    "ConnectionClosedError": _SILENT,
    "EndpointConnectionError": _SILENT,
    "ProxyConnectionError": _SILENT,
    "ReadTimeoutError": _SILENT,
    "SSLError": _SILENT,
}

log = logging.getLogger(__name__)


@cache
def s3_client(
    *,
    endpoint: str,
    region: str,
    connect_seconds: float = CONNECT_SECONDS,
    read_seconds: float = READ_SECONDS,
) -> Any:
    """One client for all threads of a process: making it costs 15 MB and a tenth of a second.

    An empty ``endpoint`` is Amazon's own, an empty ``region`` what boto3 finds. A call is tried
    ``ATTEMPTS`` times, with jitter in between, and each time waits no longer than these seconds.
    """
    config = Config(
        connect_timeout=connect_seconds,
        read_timeout=read_seconds,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        request_checksum_calculation="when_required",  # ours is stronger, and known to all stores
    )
    with _translated():
        return Session().client(
            "s3", endpoint_url=endpoint or None, region_name=region or None, config=config
        )


class S3Store:
    """An object store in a bucket that is there: ``objects/<first 2>/<sha256>``."""

    def __init__(self, client: Any, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    def put(self, sha256: str, source: Path) -> None:
        """The store checks what arrives before it keeps it: a file against its digest, a large
        one part by part. Neither is ever in memory as a whole.
        """
        if self.exists(sha256):
            return
        with _translated():
            if source.stat().st_size > LARGEST_WHOLE_BYTES:
                self._put_in_parts(sha256, source)
            else:
                self._put_whole(sha256, source)

    def open(self, sha256: str) -> BinaryIO:
        with _translated():
            answer = self._client.get_object(**self._place(sha256))
        return io.BufferedReader(_Arriving(answer["Body"]), READ_AHEAD_BYTES)

    def exists(self, sha256: str) -> bool:
        return self._head(sha256) is not None

    def size(self, sha256: str) -> int:
        head = self._head(sha256)
        if head is None:
            raise NotFound(NO_SUCH_OBJECT)
        return int(head["ContentLength"])

    def delete(self, sha256: str) -> None:
        with suppress(NotFound), _translated():
            self._client.delete_object(**self._place(sha256))

    def _put_whole(self, sha256: str, source: Path) -> None:
        checksum = b64encode(bytes.fromhex(sha256)).decode()
        with source.open("rb") as body:
            self._client.put_object(**self._place(sha256), Body=body, ChecksumSHA256=checksum)

    def _put_in_parts(self, sha256: str, source: Path) -> None:
        place, checked = self._place(sha256), {"ChecksumAlgorithm": "SHA256"}
        with create_transfer_manager(self._client, _IN_PARTS) as transfers:
            transfers.upload(str(source), place["Bucket"], place["Key"], checked).result()

    def _head(self, sha256: str) -> Any | None:
        with _translated():
            try:
                return self._client.head_object(**self._place(sha256))
            except ClientError as error:
                if error.response["Error"]["Code"] != "404":
                    raise
            # A bucket that is not there answers the same.
            self._client.head_bucket(Bucket=self._bucket)
            return None

    def _place(self, sha256: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"objects/{object_name(sha256)}"}


class _Arriving(io.RawIOBase):
    """An object's bytes on their way here, where the store may still fail."""

    def __init__(self, body: Any) -> None:
        self._body = body

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with _translated():
            return int(self._body.readinto(buffer))

    def close(self) -> None:
        self._body.close()
        super().close()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (BotoCoreError, ClientError) as error:
        cause = _cause(error)
        if cause == "NoSuchKey":
            raise NotFound(NO_SUCH_OBJECT) from error
        log.warning("object store: %s", error)
        raise Unavailable(_SENTENCES.get(cause, _FAILED)) from error


def _cause(error: BotoCoreError | ClientError) -> str:
    if isinstance(error, ClientError):
        return str(error.response["Error"]["Code"])
    return type(error).__name__
