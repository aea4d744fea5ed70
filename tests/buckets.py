"""The tests' S3 server, asked for what the store does not do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from registry.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@contextmanager
def s3_client(settings: StoreSettings) -> Iterator[S3Client]:
    """boto3's own client of the server that the settings name."""
    assert settings.secret_key
    client = boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint_url,
        region_name=settings.region,
        aws_access_key_id=settings.access_key,
        aws_secret_access_key=settings.secret_key.get_secret_value(),
        config=Config(proxies={}),
    )
    with closing(client):
        yield client
