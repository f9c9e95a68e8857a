# SPDX-License-Identifier: Apache-2.0
"""Storage URIs: `file:///absolute`, `file:relative`, a plain path, `s3://bucket/prefix`. Nothing is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from thinkrec_trainer.errors import BadInput


@dataclass(frozen=True, slots=True)
class FileLocation:
    """A path on this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class S3Location:
    """A prefix in a bucket; `prefix` has no leading or trailing slash."""

    bucket: str
    prefix: str


def parse_location(uri: str) -> FileLocation | S3Location:
    """Return where `uri` points; a relative path counts from the working directory. BadInput for other schemes."""
    if uri.startswith("s3://"):
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        if not bucket:
            raise BadInput(f"storage URI {uri!r} names no bucket: write s3://bucket/prefix")
        return S3Location(bucket, prefix.strip("/"))
    if uri.startswith("file:"):
        return FileLocation(_file_path(uri))
    if "://" in uri or not uri:
        raise BadInput(
            f"storage URI {uri!r} is not supported: use file:///path, file:relative/path or s3://bucket/prefix"
        )
    return FileLocation(Path(uri).expanduser().absolute())


def _file_path(uri: str) -> Path:
    parts = urlsplit(uri)
    if parts.netloc not in ("", "localhost"):
        raise BadInput(f"storage URI {uri!r} names a host {parts.netloc!r}: write file:///path (three slashes)")
    path = unquote(
        uri.removeprefix("file:").removeprefix("//").removeprefix("localhost") if parts.netloc else _plain(uri)
    )
    if not path:
        raise BadInput(f"storage URI {uri!r} names no path: write file:///path or file:relative/path")
    return Path(path).absolute()


def _plain(uri: str) -> str:
    rest = uri.removeprefix("file:")
    return rest.removeprefix("//") if rest.startswith("///") else rest


def join(uri: str, *names: str) -> str:
    """Return the URI of a blob or folder below `uri`."""
    return "/".join([uri.rstrip("/"), *names])


def parent(uri: str) -> str:
    """Return the URI one level up: `s3://b/kind/key` -> `s3://b/kind`."""
    head, slash, _ = uri.rstrip("/").rpartition("/")
    return head if slash else "."
