"""A local Kubernetes for as long as it runs: VMs behind VMIs where the local image is there, or
containers behind pods, or states alone.

python -m vmrunner_localclouds.kube [--port N] [--behind vms|pods|nothing] [--mirror NAME=ADDRESS]
"""

from __future__ import annotations

import argparse
import logging
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import VmrunnerError
from vmrunner_localclouds.kube.cloud import LocalKube
from vmrunner_localclouds.pods import Pods
from vmrunner_localclouds.vms import Vms

PORT: Final = 5003


@contextmanager
def behind(what: str, directory: Path, mirrors: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The real parts of a cluster. Raises VmrunnerError or OSError, with the fix."""
    if what == "pods":
        with Pods(directory, registries=mirrors) as pods:
            yield {"pods": pods}
    elif what == "vms":
        vms = Vms.open()
        if vms.warning:
            print(vms.warning, file=sys.stderr)  # noqa: T201
        yield {"vms": vms}
    else:
        yield {}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m vmrunner_localclouds.kube",
        description="A local Kubernetes with KubeVirt. Says on stdout where its kubeconfig is.",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"{PORT}; 0 takes a free one")
    parser.add_argument("--behind", choices=("vms", "pods", "nothing"), default="nothing")
    parser.add_argument(
        "--mirror",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="a registry on loopback that pods ask in place of NAME: docker.io=127.0.0.1:5000",
    )
    options = parser.parse_args()
    mirrors = dict(mirror.partition("=")[::2] for mirror in options.mirror)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before there are threads: they inherit it
    try:
        with (
            tempfile.TemporaryDirectory(prefix="localkube-pods-") as place,
            behind(options.behind, Path(place), mirrors) as parts,
        ):
            _serve(LocalKube(**parts), options.port)
    except (VmrunnerError, OSError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _serve(cloud: LocalKube, port: int) -> None:
    cloud.start(port)
    try:
        print(f"export KUBECONFIG={cloud.kubeconfig}", flush=True)  # noqa: T201
        print("serving until Ctrl-C", file=sys.stderr, flush=True)  # noqa: T201
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    finally:
        cloud.stop()


if __name__ == "__main__":
    sys.exit(main())
