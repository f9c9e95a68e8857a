# SPDX-License-Identifier: Apache-2.0
"""What a server needs on this machine: bundle and base model, in place or fetched as the cluster's pods fetch them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from thinkrec_operator.local.store import local_path
from thinkrec_operator.manifests.serving import fetch_arguments
from thinkrec_operator.names import content_hash
from thinkrec_operator.plan import DeploymentChild


class NotServableHere(RuntimeError):  # noqa: N818 (the caller reads `except NotServableHere`)
    """The revision's files are not to be had on this machine."""


_COMMIT = re.compile(r"@[0-9a-f]{40}$")


@dataclass(frozen=True, slots=True)
class Fetch:
    """One download: `python -m thinkrec_trainer fetch ARGUMENTS`."""

    what: str
    to: Path
    arguments: tuple[str, ...]
    """The address first."""
    fixed: bool
    """The address names the content, so that what was fetched once is never fetched again."""

    @property
    def uri(self) -> str:
        """Return the address."""
        return self.arguments[0]

    @property
    def command(self) -> tuple[str, ...]:
        """Return the arguments with where the files go."""
        return (*self.arguments, "--to", str(self.to))

    @property
    def done(self) -> bool:
        """Return whether it is here since an earlier run."""
        return self._mark.is_file()

    def keep(self) -> None:
        """Remember that everything is here."""
        if self.fixed:
            self._mark.touch()

    @property
    def _mark(self) -> Path:
        return self.to.with_name(f"{self.to.name}.complete")


@dataclass(frozen=True, slots=True)
class Materials:
    """Where bundle and base model are, once everything in `fetches` is done."""

    bundle: Path
    base_model: Path
    fetches: tuple[Fetch, ...]


def materials(child: DeploymentChild, *, folder: Path, fetched: Path) -> Materials:
    """Return where a revision's files are.

    `file:` addresses (relative ones below `folder`) are used in place; anything else goes into a folder of its own
    below `fetched`. Raises NotServableHere for a path that does not exist.
    """
    bundle, base = fetch_arguments(child)
    bundle_here, base_here = _here("bundle", bundle[0], folder), _here("base model", base[0], folder)
    digest = (child.bundle.digest or "").removeprefix("sha256:")
    fetches = (
        *((Fetch("bundle", fetched / digest, bundle, fixed=True),) if bundle_here is None else ()),
        *((_fetch_base(base, fetched),) if base_here is None else ()),
    )
    places = {fetch.what: fetch.to for fetch in fetches}
    return Materials(bundle_here or places["bundle"], base_here or places["base model"], fetches)


def _fetch_base(arguments: tuple[str, ...], fetched: Path) -> Fetch:
    fixed = _COMMIT.search(arguments[0]) is not None
    return Fetch("base model", fetched / content_hash(arguments), arguments, fixed=fixed)


def _here(what: str, uri: str, folder: Path) -> Path | None:
    """Return the path of a `file:` address, or None for any other."""
    path = local_path(uri, folder)
    if path is not None and not path.exists():
        raise NotServableHere(f"the {what} at {uri} does not exist: there is no {path}")
    return path
