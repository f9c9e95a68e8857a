# SPDX-License-Identifier: Apache-2.0
"""Blobs in an S3 bucket, at any endpoint. The only module of the project that imports boto3.

Credentials come from the environment only (boto3's own chain: variables, web identity, instance role). Files of an
artifact are stored under names that carry their content, so that two racing writers never mix; the manifest is written
with If-None-Match, so that exactly one of them wins.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3.session
import botocore.loaders
import botocore.session
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, PartialCredentialsError

from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.errors import BadInput, StageError, Temporary
from thinkrec_trainer.store.blobs import Blob, MissingBlob, safe_name
from thinkrec_trainer.store.location import S3Location

STALE_UPLOAD_HOURS = 24
"""Multipart uploads of a killed writer are aborted after this."""

_REFUSED = {
    "NoSuchBucket": "create the bucket or correct the storage URI",
    "AccessDenied": "give these credentials read and write access to the prefix",
    "InvalidAccessKeyId": "correct AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "correct AWS_SECRET_ACCESS_KEY",
    "ExpiredToken": "renew the credentials",
    "PermanentRedirect": "set the bucket's region in artifacts.region",
    "AuthorizationHeaderMalformed": "set the bucket's region in artifacts.region",
    "NotImplemented": "the endpoint lacks a needed S3 feature (conditional writes); use one that has it",
    "403": "check credentials and bucket policy",
    "InvalidBucketName": "correct the storage URI",
}
_PASSING = frozenset({"SlowDown", "RequestTimeout", "Throttling", "InternalError", "ServiceUnavailable"})
_REASONS = {
    "NoSuchBucket": Reason.DATASET_NOT_FOUND,
    **dict.fromkeys(
        ("AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "403"),
        Reason.CREDENTIALS_INVALID,
    ),
}


@dataclass(frozen=True, slots=True)
class S3Blobs:
    """Blobs below `s3://bucket/prefix`. The client may be used from several threads."""

    location: S3Location
    client: Any = field(repr=False)
    page_size: int = 1000
    """Keys per listing and per deletion call; 1000 is S3's own limit."""
    part_bytes: int = 32 * 1024 * 1024
    """Larger files travel in parts of this size, four at a time; S3 wants at least 5 MiB and at most 10 000 parts."""

    @property
    def uri(self) -> str:
        """The root as an S3 URI."""
        return f"s3://{self.location.bucket}/{self.location.prefix}".rstrip("/")

    @property
    def folder(self) -> Path | None:
        """None: nothing is local."""
        return None

    def read(self, name: str) -> bytes | None:
        """Return the object, or None when there is none."""
        with self._explained():
            try:
                answer = self.client.get_object(Bucket=self.location.bucket, Key=self._key(name))
                return bytes(answer["Body"].read())
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    return None
                raise

    def download(self, name: str, to: Path) -> None:
        """Fetch the object, in parts when it is large; raise MissingBlob when there is none."""
        with self._explained():
            try:
                self.client.download_file(self.location.bucket, self._key(name), str(to), Config=self._transfer())
            except ClientError as error:
                if _code(error) in ("NoSuchKey", "404"):
                    raise MissingBlob(f"{self.uri}/{name} does not exist") from error
                raise

    def upload(self, name: str, source: Path) -> None:
        """Send a local file, in parts when it is large; parts of a failed upload are aborted."""
        with self._explained():
            self.client.upload_file(str(source), self.location.bucket, self._key(name), Config=self._transfer())

    def create(self, name: str, data: bytes) -> bool:
        """Put the object with If-None-Match: *; False when it exists."""
        with self._explained():
            try:
                self.client.put_object(Bucket=self.location.bucket, Key=self._key(name), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                if _code(error) == "ConditionalRequestConflict":
                    return self._lost_conflict(name)
                raise
            return True

    def list(self, prefix: str = "") -> Sequence[Blob]:
        """Return the objects whose name starts with `prefix`."""
        root = f"{self.location.prefix}/" if self.location.prefix else ""
        with self._explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.location.bucket, Prefix=root + prefix, PaginationConfig={"PageSize": self.page_size}
            )
            objects = [found for page in pages for found in page.get("Contents", [])]
        found = [Blob(o["Key"].removeprefix(root), o["Size"], o.get("ETag", "")) for o in objects]
        return sorted(found, key=lambda blob: blob.name)

    def delete(self, names: Sequence[str]) -> None:
        """Remove objects, a page of them per call."""
        with self._explained():
            for start in range(0, len(names), self.page_size):
                keys = [{"Key": self._key(name)} for name in names[start : start + self.page_size]]
                answer = self.client.delete_objects(
                    Bucket=self.location.bucket, Delete={"Objects": keys, "Quiet": True}
                )
                for failed in answer.get("Errors", [])[:1]:  # the answer as a whole is a success even then
                    raise ClientError({"Error": {"Code": failed.get("Code", ""), **failed}}, "DeleteObjects")

    def prune(self) -> None:
        """Abort uploads that a dead writer left unfinished; a bucket has no folders."""
        self.abort_stale_uploads(now=datetime.datetime.now(datetime.UTC))

    def publish(self, files: Sequence[tuple[str, Path]], manifest_name: str, manifest: bytes) -> bool:
        """Upload what is not there yet, then create the manifest."""
        self.abort_stale_uploads(now=datetime.datetime.now(datetime.UTC))
        present = {blob.name: blob.size for blob in self.list()}
        for name, source in files:
            if present.get(name) != source.stat().st_size:
                self.upload(name, source)
        return self.create(manifest_name, manifest)

    def object_name(self, path: str, sha256: str) -> str | None:
        """`<first 16 digits of sha256>/<path>`: the same name always holds the same bytes."""
        return f"{sha256[:16]}/{path}"

    def _key(self, name: str) -> str:
        return f"{self.location.prefix}/{safe_name(name)}".lstrip("/")

    def _transfer(self) -> TransferConfig:
        size = self.part_bytes
        return TransferConfig(multipart_threshold=size, multipart_chunksize=size, max_concurrency=4)

    def _lost_conflict(self, name: str) -> bool:
        """Two creations at the same instant: S3 refuses one with 409 while the other may still fail."""
        if self.read(name) is None:
            raise Temporary(f"{self.uri}/{name} is being written by another process; try again")
        return False

    def abort_stale_uploads(self, *, now: datetime.datetime) -> None:
        """Abort multipart uploads below the root that were begun more than a day before `now`."""
        oldest = now - datetime.timedelta(hours=STALE_UPLOAD_HOURS)
        bucket = self.location.bucket
        with self._explained():
            answer = self.client.list_multipart_uploads(Bucket=bucket, Prefix=f"{self.location.prefix}/")
            for upload in answer.get("Uploads", []):
                if upload["Initiated"] < oldest:
                    self.client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error) as error:
            raise _translated(error, self.uri, self.client.meta.endpoint_url) from error


def open_s3(location: S3Location, options: StoreOptions, *, credentials: str = "") -> S3Blobs:
    """Return blobs at the endpoint of `options` (None: AWS), with standard retries and bounded waiting.

    `credentials`: prefix of the variables that hold them, where there are such.
    """
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 5},
        connect_timeout=10,
        read_timeout=60,
        s3={"addressing_style": "path" if options.endpoint else "auto"},
        request_checksum_calculation="when_required",  # the newer default breaks many compatible servers
        response_checksum_validation="when_required",
    )
    region = options.region or ("us-east-1" if options.endpoint else None)
    try:
        client = _session().client(
            "s3", endpoint_url=options.endpoint, region_name=region, config=config, **_keys(credentials)
        )
    except (ValueError, BotoCoreError) as error:
        raise BadInput(
            f"S3 endpoint {options.endpoint!r} cannot be used: {error}; write http(s)://host:port"
        ) from error
    return S3Blobs(location, client)


def _keys(prefix: str) -> dict[str, str]:
    """Return the keys in the variables with this prefix; nothing (boto3's own chain) for no prefix or no such key."""
    if not prefix or not os.environ.get(f"{prefix}AWS_ACCESS_KEY_ID"):
        return {}
    names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
    return {name: value for name in names if (value := os.environ.get(f"{prefix}{name.upper()}"))}


def _session() -> boto3.session.Session:
    """Return a new session: boto3's default one keeps credentials that have changed since, and is not thread-safe."""
    session = botocore.session.get_session()
    session.register_component("data_loader", _service_descriptions())
    return boto3.session.Session(botocore_session=session)


@functools.cache
def _service_descriptions() -> botocore.loaders.Loader:
    """Return boto's reader of service descriptions; parsing them is most of the time that a new client takes."""
    return botocore.loaders.create_loader()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _translated(error: Exception, uri: str, endpoint: str) -> StageError:
    """Return the stage error of a boto failure. Messages of boto hold no secret key; signatures are never printed."""
    cause = _client_error(error)
    if isinstance(error, (NoCredentialsError, PartialCredentialsError)):
        remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (secretRef) or a workload identity"
        return BadInput(f"no S3 credentials for {uri}: {remedy}", reason=Reason.CREDENTIALS_INVALID)
    if cause is None:
        return Temporary(f"S3 endpoint {endpoint} for {uri} is out of reach: {type(error).__name__}: {error}")
    code = _code(cause)
    status = cause.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _REFUSED:
        told = f"S3 endpoint {endpoint} refused {uri}: {code}; {_REFUSED[code]}"
        return BadInput(told, reason=_REASONS.get(code))
    if status >= 500 or status in (408, 429) or code in _PASSING:
        return Temporary(f"S3 endpoint {endpoint} failed for {uri}: {code} (HTTP {status})")
    return BadInput(f"S3 endpoint {endpoint} refused {uri}: {cause}")


def _client_error(error: BaseException | None) -> ClientError | None:
    """Find the server's answer behind a wrapper such as S3UploadFailedError."""
    while error is not None:
        if isinstance(error, ClientError):
            return error
        error = error.__cause__ or error.__context__
    return None
