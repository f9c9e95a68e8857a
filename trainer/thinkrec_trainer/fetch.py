# SPDX-License-Identifier: Apache-2.0
"""Outside sources: ratings, item files, base models, CF checkpoints. Local paths are used in place, the rest is cached.

The cache is the engine's (`THINKREC_CACHE`, else `~/.cache/thinkrec`). `hf://` takes weights (safetensors), JSON and
tokenizer files only: no code and no pickles ever reach the disk. Credentials: SOURCE_AWS_… and SOURCE_HF_TOKEN, else
the plain names.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from thinkrec_crds.conditions import Reason
from thinkrec_crds.stages import SOURCE_PREFIX, BaseModelRef, StoreOptions
from thinkrec_inference.engine.digests import cache_folder
from thinkrec_trainer.errors import BadInput, Temporary
from thinkrec_trainer.store import Blob, Blobs, open_blobs, parent
from thinkrec_trainer.store.artifacts import fetch_blobs, sha256_of
from thinkrec_trainer.store.location import FileLocation, parse_location

HUB_PATTERNS = ("*.safetensors", "*.json", "tokenizer.model", "*.jinja", "merges.txt", "vocab.txt")
_HUB_URI = re.compile(r"^hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?$")


def fetch_source(uri: str, options: StoreOptions | None = None, cache: Path | None = None) -> Path:
    """Return a local file or folder with the content of `uri`. BadInput when it does not exist."""
    if uri.startswith("hf://"):
        return _fetch_hub(uri)
    location = parse_location(uri)
    if isinstance(location, FileLocation):
        return _existing(location.path, uri)
    return _fetch_objects(uri, options, (cache or cache_folder()) / "sources")


def source_fetcher(options: StoreOptions) -> Callable[[str], Path]:
    """Return `fetch_source` bound to the spec's store options, for StageContext.fetch."""
    return lambda uri: fetch_source(uri, options)


def source_digest(path: Path) -> str:
    """Return `sha256:<hex>` of a file's bytes, or of the sorted (name, sha256) list of a folder's visible files."""
    if path.is_file():
        return f"sha256:{sha256_of(path)}"
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")):
        digest.update(f"{file.relative_to(path).as_posix()}\0{sha256_of(file)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _existing(path: Path, uri: str) -> Path:
    if not path.exists():
        raise BadInput(f"storage URI {uri!r} does not exist: there is no {path}", reason=Reason.DATASET_NOT_FOUND)
    return path


def _fetch_objects(uri: str, options: StoreOptions | None, cache: Path) -> Path:
    """Download an object, or everything below a prefix; the cache name covers names and sizes, so changes are seen."""
    prefix, name = parent(uri), uri.rstrip("/").rpartition("/")[2]
    single = open_blobs(prefix, options, credentials=SOURCE_PREFIX) if prefix != "s3:/" else None
    if single is not None and (exact := [blob for blob in single.list(name) if blob.name == name]):
        return _cached(single, exact, cache, uri) / name
    blobs = open_blobs(uri, options, credentials=SOURCE_PREFIX)
    found = [blob for blob in blobs.list() if not blob.name.endswith("/")]
    if not found:
        raise BadInput(
            f"storage URI {uri!r} does not exist: no object has that name or prefix", reason=Reason.DATASET_NOT_FOUND
        )
    return _cached(blobs, found, cache, uri)


def base_model_uri(reference: BaseModelRef) -> str:
    """Return the URI of a base model with its revision, where the scheme has revisions (`hf://`)."""
    if reference.revision and reference.storage_uri.startswith("hf://") and "@" not in reference.storage_uri:
        return f"{reference.storage_uri}@{reference.revision}"
    return reference.storage_uri


def _cached(blobs: Blobs, found: Sequence[Blob], cache: Path, uri: str) -> Path:
    """Return the folder that holds exactly these versions of these blobs."""
    identity = json.dumps([uri, [(blob.name, blob.size, blob.version) for blob in found]])
    target = cache / hashlib.sha256(identity.encode()).hexdigest()[:40]
    if not target.is_dir():
        fetch_blobs(blobs, [blob.name for blob in found], target)
    return target


def _fetch_hub(uri: str) -> Path:
    """Download a model of the Hugging Face hub (its own cache and HF_TOKEN apply); weights must be safetensors."""
    import huggingface_hub
    from huggingface_hub import errors

    match = _HUB_URI.match(uri)
    if match is None:
        raise BadInput(f"base model URI {uri!r} is not of the form hf://organisation/name[@revision]")
    try:
        folder = huggingface_hub.snapshot_download(
            match["name"],
            revision=match["revision"],
            allow_patterns=list(HUB_PATTERNS),
            token=os.environ.get(f"{SOURCE_PREFIX}HF_TOKEN") or None,  # None: HF_TOKEN, as the hub's client reads it
        )
    except errors.HFValidationError as error:
        raise BadInput(f"base model URI {uri!r} is not of the form hf://organisation/name[@revision]") from error
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        remedy = "check name and revision; a gated or private model needs HF_TOKEN"
        refused = isinstance(error, errors.GatedRepoError)
        raise BadInput(
            f"base model {uri!r} is not to be had from the hub: {remedy}",
            reason=Reason.CREDENTIALS_INVALID if refused else Reason.DATASET_NOT_FOUND,
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, OSError) as error:
        raise Temporary(f"base model {uri!r}: the hub is out of reach ({type(error).__name__})") from error
    return Path(folder)
