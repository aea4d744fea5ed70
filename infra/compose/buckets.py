"""Make the buckets of infra/compose.yaml, and have that of the models keep versions. Doing it again changes nothing.

It runs in the image macrofleet-flows, with the credentials of SeaweedFS's administrator in boto3's own variables.
"""

from __future__ import annotations

import boto3
from botocore.exceptions import ClientError

BUCKETS = ("models", "mlflow")
VERSIONED = ("models",)


def main() -> None:
    """Raises botocore's errors: nothing can go on without buckets."""
    client = boto3.Session().client("s3")
    for bucket in BUCKETS:
        try:
            client.create_bucket(Bucket=bucket)
        except ClientError as problem:
            if problem.response["Error"]["Code"] not in {"BucketAlreadyExists", "BucketAlreadyOwnedByYou"}:
                raise
        if bucket in VERSIONED:
            client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


if __name__ == "__main__":
    main()
