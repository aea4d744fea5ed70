"""What the code asks of S3, written down while it does so, and what rights that takes on Amazon's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from registry.store.s3 import S3Store
from tests.infra.iam import Request


@dataclass(frozen=True)
class Call:
    """A request.

    Attributes:
        who: on whose behalf.
        bucket: of which.
        operation: `GetObject`.
        key: or prefix, of one that lists.
        versioned: of deletions, whether a version is named.
    """

    who: str
    bucket: str
    operation: str
    key: str
    versioned: bool = False

    def requests(self) -> list[Request]:
        """What has to be allowed, beside the key of encryption.

        "Required permissions for Amazon S3 API operations" in its guide. Reading what is not there takes the right to list, too:
        without it the answer is 403, and a tenant without settings of its own would be one that cannot be read.
        """
        listing, thing = f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/{self.key}"
        prefix = {"s3:prefix": self.key}
        match self.operation:
            case "GetObject" | "HeadObject":
                # This context has no prefix: what is allowed for some prefixes alone does not help.
                return [Request("s3:GetObject", thing), Request("s3:ListBucket", listing)]
            case "PutObject" | "AbortMultipartUpload" | "DeleteObject":
                return [Request(f"s3:{self.operation}", thing)]
            case "DeleteObjects":
                return [Request("s3:DeleteObjectVersion" if self.versioned else "s3:DeleteObject", thing)]
            case "ListObjectsV2":
                return [Request("s3:ListBucket", listing, prefix)]
            case "ListObjectVersions":
                return [Request("s3:ListBucketVersions", listing, prefix)]
            case "ListMultipartUploads":
                return [Request("s3:ListBucketMultipartUploads", listing)]
        raise AssertionError(f"nobody knows what rights {self.operation} takes")


@dataclass
class Recording:
    """Calls, and who makes them now."""

    who: str = "nobody"
    calls: list[Call] = field(default_factory=list)

    @contextmanager
    def on_behalf_of(self, who: str) -> Iterator[None]:
        before, self.who = self.who, who
        try:
            yield
        finally:
            self.who = before

    def heard(self, operation: str, params: Mapping[str, Any]) -> None:
        bucket = params["Bucket"]
        if operation == "DeleteObjects":
            for each in params["Delete"]["Objects"]:
                self.calls.append(Call(self.who, bucket, operation, each["Key"], "VersionId" in each))
        else:
            self.calls.append(Call(self.who, bucket, operation, params.get("Key", params.get("Prefix", ""))))


@contextmanager
def recording() -> Iterator[Recording]:
    """Every S3 store that connects while this lasts is listened to."""
    made = Recording()
    connect = S3Store._connect

    def listened(store: S3Store) -> Any:
        client = connect(store)
        client.meta.events.register_first(
            "provide-client-params.s3",
            lambda params, model, **_: made.heard(model.name, params),
        )
        return client

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(S3Store, "_connect", listened)
        yield made
