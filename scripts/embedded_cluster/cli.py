# SPDX-License-Identifier: Apache-2.0
"""The command `scripts/cluster`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from embedded_cluster import addon_programs, choose, cluster, dependencies, images, programs, teardown
from embedded_cluster.choose import Source
from embedded_cluster.errors import ClusterError
from embedded_cluster.locks import file_lock
from embedded_cluster.paths import State, cluster_folder

_EXAMPLES = """\
examples:
  scripts/cluster up                          a whole cluster with one node (as root; about 10 s once built)
  export KUBECONFIG=...                       the line that `up` prints
  scripts/cluster up --control-plane-only     API server, controllers and scheduler without a node; needs no root
  scripts/cluster up --kube-context staging   use a cluster of your own; nothing is started
  scripts/cluster images operator             build operator/Dockerfile, load the image, print its name
  scripts/cluster load my-image.tar           make an image archive usable for pods
  scripts/cluster status                      what runs, and where its logs are
  scripts/cluster down                        end and remove all that `up` made, also after a crash

A context is used only when it is named (--kube-context or THINKREC_KUBE_CONTEXT); then kind is used where a container
engine runs and kind is installed; otherwise the embedded cluster is started. Your own kubeconfig is never written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ClusterError as error:
        print(f"scripts/cluster: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/cluster",
        description="A Kubernetes on this machine, for trying thinkrec and for its tests.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", _up, "start a cluster and print how to use it"),
        ("down", _down, "end and remove what `up` made"),
        ("status", _status, "say what runs"),
        ("load", _load, "import image archives into the node"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--name", default="dev", help="several clusters may run side by side (default: dev)")
        command.add_argument("--kube-context", help=f"use this context (also: {choose.CONTEXT_VARIABLE})")
        command.set_defaults(run=run)
        if name == "up":
            _up_options(command)
        if name == "load":
            command.add_argument("archive", type=Path, nargs="+")
    image = commands.add_parser("images", help="build images from the repository's Dockerfiles, and load them")
    image.add_argument("component", nargs="+", choices=sorted(images.IMAGES))
    image.add_argument("--name", default="dev", help="the cluster to load them into, if it is up (default: dev)")
    image.add_argument("--base", default="", help="public base image; by default a Debian is bootstrapped")
    image.set_defaults(run=_images)
    build = commands.add_parser("build", help="build the Kubernetes programs now (6 to 9 minutes the first time)")
    build.add_argument("--addons", action="store_true", help="JobSet's and Trainer's too, for tests (4 to 6 minutes)")
    build.set_defaults(run=_build)
    deps = commands.add_parser("deps", help="install the Debian packages that a node and images need (root)")
    deps.set_defaults(run=_deps)
    return parser


def _up_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--control-plane-only", action="store_true", help="no node, so no pod runs; needs no root")
    command.add_argument("--embedded", action="store_true", help="the embedded cluster even where kind is installed")
    command.add_argument(
        "--apiserver-flag", action="append", default=[], metavar="--FLAG=VALUE", help="added to the API server's flags"
    )


def _up(options: argparse.Namespace) -> None:
    state = State(cluster_folder(options.name).resolve())
    with _alone(state):
        if choose.saved(state) is not None and _answers(state):
            print(f"# {options.name} is up already", file=sys.stderr)
        else:
            teardown.down(state)  # what a crash has left
            _create(options, state)
    print(f"export KUBECONFIG={state.kubeconfig}")


def _alone(state: State) -> AbstractContextManager[None]:
    """Return the lock of one cluster: two commands at once would undo each other's work."""
    lock = state.folder.with_name(f".{state.folder.name}.lock")
    return file_lock(lock, waiting="Another command works on this cluster; waiting for it")


def _create(options: argparse.Namespace, state: State) -> None:
    began = time.monotonic()
    only_embedded = options.embedded or options.control_plane_only or bool(options.apiserver_flag)
    choice = choose.choose(options.kube_context, name=options.name, embedded=only_embedded)
    match choice.source:
        case Source.CONTEXT:
            choose.adopt(choice, state)
        case Source.KIND:
            choose.create_kind(choice, state, name=options.name)
        case Source.EMBEDDED:
            _create_embedded(options, state)
    print(f"# {choice.source} {choice.context} ready after {time.monotonic() - began:.1f} s", file=sys.stderr)


def _create_embedded(options: argparse.Namespace, state: State) -> None:
    node = not options.control_plane_only
    if node and (reason := dependencies.why_no_node()):
        raise ClusterError(reason)
    programs.ensure([*programs.CONTROL_PLANE, *(programs.NODE if node else ())])
    try:
        cluster.start(state.folder, node=node, flags=options.apiserver_flag).api.close()
    except ClusterError:
        print(f"# logs are kept in {state.logs} until `scripts/cluster down --name {options.name}`", file=sys.stderr)
        raise


def _answers(state: State) -> bool:
    """Return whether what was started still runs (a cluster that was only named is not ours to judge)."""
    choice = choose.saved(state)
    if choice is None or choice.source is not Source.EMBEDDED:
        return choice is not None
    running = cluster.load(state.folder)
    running.api.close()
    return all(process.alive for process in running.processes.all())


def _down(options: argparse.Namespace) -> None:
    state = State(cluster_folder(options.name).resolve())
    with _alone(state):
        choice = choose.saved(state) or choose.Choice(Source.EMBEDDED)
        choose.refuse_foreign(options.kube_context, choice, action="down")
        if choice.source is Source.KIND:
            choose.delete_kind(options.name)
        gone = teardown.down(state)
    left = f"; {choice.context} itself is untouched" if choice.source is Source.CONTEXT else ""
    print(f"{options.name} removed{left}" if gone else f"{options.name} was not up", file=sys.stderr)


def _status(options: argparse.Namespace) -> None:
    state = State(cluster_folder(options.name).resolve())
    choice = choose.saved(state)
    if choice is None:
        crashed = f"; remains of it lie in {state.folder}, `scripts/cluster down` removes them"
        raise ClusterError(f"{options.name} is not up{crashed if state.folder.exists() else ''}")
    print(f"{options.name}: {choice.source} {choice.context}\nexport KUBECONFIG={state.kubeconfig}")
    if choice.source is Source.EMBEDDED:
        running = cluster.load(state.folder)
        running.api.close()
        print(running.url)
        for process in running.processes.all():
            word = "runs" if process.alive else "HAS ENDED"
            print(f"  {process.name:26}{word:10} {running.processes.log(process.name)}")


def _load(options: argparse.Namespace) -> None:
    for archive in options.archive:
        if not archive.is_file():
            raise ClusterError(f"there is no image archive {archive}")
        _load_one(options.name, archive)


def _load_one(name: str, archive: Path) -> None:
    state = State(cluster_folder(name).resolve())
    choice = choose.saved(state)
    if choice is None or choice.source is Source.CONTEXT:
        raise ClusterError("images are loaded into a cluster that `up` has started; push them to a registry otherwise")
    if choice.source is Source.KIND:
        choose.load_kind(name, archive)
    else:
        running = cluster.load(state.folder)
        running.api.close()
        running.node.load_image(archive)


def _images(options: argparse.Namespace) -> None:
    choice = choose.saved(State(cluster_folder(options.name).resolve()))
    for component in options.component:
        image = images.build(component, base=options.base)
        if choice is not None and choice.source is not Source.CONTEXT:
            _load_one(options.name, image.archive)
        print(f"{image.name}  {image.archive}")


def _build(options: argparse.Namespace) -> None:
    programs.ensure([*programs.CONTROL_PLANE, *programs.NODE])
    addon_programs.ensure(addon_programs.ALL if options.addons else ())
    folders = [programs.folder(), *(addon.folder for addon in addon_programs.ALL if options.addons)]
    print(f"built: {', '.join(map(str, folders))}", file=sys.stderr)


def _deps(options: argparse.Namespace) -> None:
    del options
    packages = dependencies.install()
    print(f"installed: {' '.join(packages)}" if packages else "everything is there already", file=sys.stderr)
