"""The object store in a bucket of S3, or of a server that keeps S3's conditional writes."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from registry.errors import InvalidInput, ObjectNotFound, PreconditionFailed, StoreUnavailable
from registry.retrying import patiently
from registry.store.port import (
    LOST_RACE,
    ObjectInfo,
    ObjectState,
    StoredObject,
    check_folder,
    check_key,
    is_key,
    too_large,
)
from registry.store.s3_errors import FAILING, BrokenOff, Conflicting, NotModified, domain_error

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ObjectIdentifierTypeDef
    from pydantic import SecretStr
    from typing_extensions import Buffer  # collections.abc has it from 3.12 on

_STREAM_BUFFER = 1 << 18
# What S3 takes in one request.
_PURGED_AT_ONCE = 1000
# Of an object whose bytes stop coming, the first one at once. boto3 tries requests again, and nothing once they are
# answered.
_READ_ATTEMPTS = 3
_READ_WAIT_SECONDS = 0.1
_CONFLICTS = 4
_CONFLICT_WAIT_SECONDS = 0.1
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

Result = TypeVar("Result")


class S3Store:
    """A prefix of a bucket that keeps the `ObjectStore` contract.

    Requests are retried by boto3 (four attempts in all, with jittered backoff), so a conditional write may fail on the
    caller's own earlier attempt: see `put`. An object that breaks off while it is read is asked for again, a stream from
    where it broke off. One instance serves all threads of a process; nothing is sent before the first call.

    Args:
        bucket: the bucket; it must exist.
        prefix: what every key starts with there, without slashes at its ends; empty for the whole bucket.
        endpoint_url: another server than Amazon's.
        region: None leaves it to boto3.
        access_key: None, together with `secret_key`, leaves the credentials to boto3's chain.
        patient: False gives up after two attempts of a second's connecting, instead of four of three.
    """

    def __init__(
        self,
        bucket: str,
        prefix: str = "",
        *,
        endpoint_url: str | None = None,
        region: str | None = None,
        access_key: str | None = None,
        secret_key: SecretStr | None = None,
        patient: bool = True,
    ) -> None:
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._endpoint_url = endpoint_url
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key
        self._patient = patient
        self._lock = threading.Lock()
        self._client: S3Client | None = None

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`, as `open_store` takes it."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    @property
    def place(self) -> str:
        """The URL, and which server that is: buckets of two servers may have one name."""
        return self.url if self._endpoint_url is None else f"{self.url} at {self._endpoint_url}"

    def get(self, key: str, *, max_bytes: int | None = None) -> StoredObject:
        """See `ObjectStore.get`."""
        return self._get(key, max_bytes)

    def get_if_changed(self, key: str, etag: str | None, *, max_bytes: int | None = None) -> StoredObject | None:
        """See `ObjectStore.get_if_changed`."""
        if etag is None:
            return self._get(key, max_bytes)
        try:
            return self._get(key, max_bytes, IfNoneMatch=_quoted(etag))
        except NotModified:
            return None

    def open(self, key: str) -> IO[bytes]:
        """See `ObjectStore.open`. A connection that keeps breaking while the stream is read raises StoreUnavailable."""
        with self._translated(key):
            answer = self._s3().get_object(Bucket=self._bucket, Key=self._full(key))
        return io.BufferedReader(_Body(self, key, answer["Body"], answer["ETag"]), _STREAM_BUFFER)

    def head(self, key: str) -> ObjectInfo:
        """See `ObjectStore.head`. S3 does not say here whether it is the object or the bucket that is missing."""
        with self._translated(key):
            answer = self._s3().head_object(Bucket=self._bucket, Key=self._full(key))
        return ObjectInfo(key=key, size=answer["ContentLength"], etag=_bare(answer["ETag"]))

    def put(self, key: str, data: bytes, *, if_match: str | None = None, if_absent: bool = False) -> str:
        """See `ObjectStore.put`.

        A PreconditionFailed may be the caller's own success: the first attempt was written, its answer was lost, and
        the retry found the object there. Whoever writes on a condition reads back and compares before it gives up.
        """
        return self._put(key, data, if_match=if_match, if_absent=if_absent)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> str:
        """See `ObjectStore.put_file`, and `put` on PreconditionFailed. One request: S3 takes up to 5 GiB.

        Raises OSError if `path` cannot be read.
        """
        with path.open("rb") as source:
            return self._put(key, source, if_match=None, if_absent=if_absent)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `ObjectStore.list`. All of the listing is fetched before the first object comes out."""
        if prefix:
            check_key(f"{prefix}0")
        return self._list(prefix)

    def names(self, prefix: str = "") -> Sequence[str]:
        """See `ObjectStore.names`."""
        full = self._prefix + check_folder(prefix)
        found: set[str] = set()
        with self._translated(prefix):
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=full, Delimiter="/"):
                found.update(item["Prefix"][len(full) : -1] for item in page.get("CommonPrefixes", ()))
                # Some web console's folders are objects that end with a slash.
                found.update(item["Key"][len(full) :] for item in page.get("Contents", ()) if item["Key"][-1] != "/")
        return sorted(found)

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`."""
        with self._translated(key):
            self._s3().delete_object(Bucket=self._bucket, Key=self._full(key))

    def states(self, prefix: str = "") -> Iterator[ObjectState]:
        """See `ObjectStore.states`. Needs the permission to list versions, and that to list uploads."""
        if prefix:
            check_key(f"{prefix}0")
        return self._states(prefix)

    def purge(self, states: Iterable[ObjectState]) -> None:
        """See `ObjectStore.purge`. Needs the permission to delete versions, and that to abort uploads."""
        remaining = iter(states)
        while some := list(islice(remaining, _PURGED_AT_ONCE)):
            for state in some:
                if state.kind == "unfinished":
                    self._abort(state)
            versions: list[ObjectIdentifierTypeDef] = [
                {"Key": self._prefix + state.key, "VersionId": state.id} for state in some if state.kind != "unfinished"
            ]
            if versions:
                self._purge(versions)

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _get(self, key: str, max_bytes: int | None, **condition: Any) -> StoredObject:
        def get() -> StoredObject:
            with self._translated(key):
                answer = self._s3().get_object(Bucket=self._bucket, Key=self._full(key), **condition)
            with closing(answer["Body"]) as body:
                size = answer["ContentLength"]
                if max_bytes is not None and size > max_bytes:
                    raise too_large(key, self.url, size, max_bytes)
                with self._reading(key):
                    data = body.read()
            modified = answer["LastModified"].timestamp()
            return StoredObject(data=data, etag=_bare(answer["ETag"]), modified=modified)

        return _again(get)

    def _resume(self, key: str, etag: str, place: int) -> StreamingBody:
        """The rest of an object from a place on. Raises StoreError: it is another one by now, or not to be had."""
        with self._translated(key):
            answer = self._s3().get_object(
                Bucket=self._bucket, Key=self._full(key), Range=f"bytes={place}-", IfMatch=etag
            )
        if not answer.get("ContentRange", "").startswith(f"bytes {place}-"):
            answer["Body"].close()
            raise StoreUnavailable(f"{self.url} broke {key} off and cannot go on from there", remedy=FAILING)
        return answer["Body"]

    def _put(self, key: str, body: bytes | IO[bytes], *, if_match: str | None, if_absent: bool) -> str:
        if if_match is not None and if_absent:
            raise InvalidInput("if_match and if_absent exclude each other")
        condition: dict[str, Any] = {}
        if if_match is not None:
            condition["IfMatch"] = _quoted(if_match)
        if if_absent:
            condition["IfNoneMatch"] = "*"

        def put() -> str:
            if not isinstance(body, bytes):
                body.seek(0)
            with self._translated(key):
                answer = self._s3().put_object(Bucket=self._bucket, Key=self._full(key), Body=body, **condition)
            return _bare(answer["ETag"])

        try:
            # Two at once, one of which may be our own, given up and not over: who has won is known in a moment.
            return patiently(put, on=Conflicting, attempts=_CONFLICTS, first_wait_seconds=_CONFLICT_WAIT_SECONDS)
        except ObjectNotFound as error:  # Amazon's answer to If-Match on a missing key; SeaweedFS says 412
            raise PreconditionFailed(f"{key} in {self.url} does not exist", remedy=LOST_RACE) from error

    def _list(self, prefix: str) -> Iterator[ObjectInfo]:
        found: list[ObjectInfo] = []
        with self._translated(prefix):
            pages = self._s3().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                found.extend(
                    ObjectInfo(key=item["Key"][len(self._prefix) :], size=item["Size"], etag=_bare(item["ETag"]))
                    for item in page.get("Contents", ())
                    # Not some web console's folder, nor anything else of others.
                    if is_key(item["Key"][len(self._prefix) :])
                )
        # Amazon sorts by key; SeaweedFS sorts folder by folder (`a/b` before `a-b`).
        yield from sorted(found, key=lambda info: info.key)

    def _states(self, prefix: str) -> Iterator[ObjectState]:
        with self._translated(prefix):
            pages = self._s3().get_paginator("list_object_versions")
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Versions", ()):
                    yield self._state(
                        item["Key"],
                        item["VersionId"],
                        item["LastModified"],
                        kind="current" if item["IsLatest"] else "noncurrent",
                        size=item["Size"],
                    )
                for marker in page.get("DeleteMarkers", ()):
                    yield self._state(marker["Key"], marker["VersionId"], marker["LastModified"], kind="marker")
            uploads = self._s3().get_paginator("list_multipart_uploads")
            for begun in uploads.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for upload in begun.get("Uploads", ()):
                    yield self._state(upload["Key"], upload["UploadId"], upload["Initiated"], kind="unfinished")

    def _state(
        self,
        full: str,
        identity: str,
        modified: datetime,
        *,
        kind: Literal["current", "noncurrent", "marker", "unfinished"],
        size: int = 0,
    ) -> ObjectState:
        key = full[len(self._prefix) :]
        return ObjectState(key=key, kind=kind, size=size, modified=modified.timestamp(), id=identity)

    def _abort(self, state: ObjectState) -> None:
        with suppress(ObjectNotFound), self._translated(state.key):
            self._s3().abort_multipart_upload(Bucket=self._bucket, Key=self._prefix + state.key, UploadId=state.id)

    def _purge(self, versions: Sequence[ObjectIdentifierTypeDef]) -> None:
        with self._translated(""):
            answer = self._s3().delete_objects(Bucket=self._bucket, Delete={"Objects": versions, "Quiet": True})
        if refused := answer.get("Errors"):
            first = refused[0]
            raise StoreUnavailable(
                f"{self.url} did not delete {len(refused)} of {len(versions)} objects ({first.get('Code', 'no reason')})",
                remedy="Check what the store's keys permit (s3:DeleteObjectVersion), and that nothing is locked.",
            )

    def _s3(self) -> S3Client:
        with self._lock:
            if self._client is None:
                with self._translated(""):
                    self._client = self._connect()
            return self._client

    def _connect(self) -> S3Client:
        local = self._endpoint_url is not None and urlsplit(self._endpoint_url).hostname in _LOOPBACK
        # A session of its own: boto3's default one is not safe to share among threads.
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self._endpoint_url,
            region_name=self._region,
            aws_access_key_id=self._access_key,
            aws_secret_access_key=self._secret_key.get_secret_value() if self._secret_key else None,
            config=Config(
                connect_timeout=3 if self._patient else 1,
                read_timeout=20 if self._patient else 5,
                retries={"mode": "standard", "total_max_attempts": 4 if self._patient else 2},
                max_pool_connections=32,
                tcp_keepalive=True,
                # Other servers seldom have a host name for each bucket.
                s3={"addressing_style": "path" if self._endpoint_url else "auto"},
                # A proxy named in the environment cannot reach this machine's loopback.
                proxies={} if local else None,
            ),
        )

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            raise domain_error(error, key, url=self.url, endpoint_url=self._endpoint_url) from error

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """The bytes of an answer that has begun."""
        try:
            yield
        except BotoCoreError as error:
            where = f"{self.url} at {self._endpoint_url or 'Amazon S3'}"
            raise BrokenOff(f"{where} broke {key} off ({type(error).__name__})", remedy=FAILING) from error


def _again(read: Callable[[], Result]) -> Result:
    """What `read` returns, also after an answer that broke off."""
    try:
        return read()
    except BrokenOff:
        return patiently(read, on=BrokenOff, attempts=_READ_ATTEMPTS - 1, first_wait_seconds=_READ_WAIT_SECONDS)


class _Body(io.RawIOBase):
    """boto3's stream of a body, with the domain's errors, that goes on where it broke off."""

    def __init__(self, store: S3Store, key: str, body: StreamingBody, etag: str) -> None:
        self._store = store
        self._key = key
        self._body = body
        self._etag = etag
        self._place = 0
        self._broken = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer) -> int:
        return _again(lambda: self._read(buffer))

    def _read(self, buffer: Buffer) -> int:
        if self._broken:
            self._body = self._store._resume(self._key, self._etag, self._place)
            self._broken = False
        try:
            with self._store._reading(self._key):
                count = self._body.readinto(buffer)  # type: ignore[arg-type]  # the stubs ask for a file
        except BrokenOff:
            self._broken = True
            self._body.close()
            raise
        self._place += count
        return count

    def close(self) -> None:
        self._body.close()
        super().close()


def _bare(etag: str) -> str:
    return etag.strip('"')


def _quoted(etag: str) -> str:
    return f'"{etag}"'
