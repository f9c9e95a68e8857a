# SPDX-License-Identifier: Apache-2.0
"""The artifact store: one interface for folders (`file://`) and S3 (`s3://`), publication once, verification always.

    location              URIs, nothing opened
    blobs                 the interface;  file_blobs, s3_blobs: fill it
    artifacts             published once, read only through a manifest, built on blobs

Nothing here knows what a stage does; boto3 is imported only when an S3 URI is opened.
"""

from __future__ import annotations

from thinkrec_crds.stages import StoreOptions
from thinkrec_trainer.store.artifacts import (
    Published,
    copy_artifact,
    describe_files,
    fetch_artifact,
    publish,
    read_manifest,
)
from thinkrec_trainer.store.blobs import Blob, Blobs
from thinkrec_trainer.store.file_blobs import FileBlobs
from thinkrec_trainer.store.location import FileLocation, join, parent, parse_location

__all__ = [
    "Blob",
    "Blobs",
    "FileLocation",
    "Published",
    "copy_artifact",
    "describe_files",
    "fetch_artifact",
    "join",
    "open_blobs",
    "parent",
    "parse_location",
    "publish",
    "read_manifest",
]


def open_blobs(uri: str, options: StoreOptions | None = None, *, credentials: str = "") -> Blobs:
    """Return the blobs below `uri`. BadInput for an unknown scheme or endpoint; nothing is contacted yet.

    `credentials` is a prefix of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; where no variable has it, boto3's usual
    chain applies.
    """
    location = parse_location(uri)
    if isinstance(location, FileLocation):
        return FileBlobs(location.path)
    from thinkrec_trainer.store.s3_blobs import open_s3

    return open_s3(location, options or StoreOptions(), credentials=credentials)
