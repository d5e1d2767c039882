"""The last output of an instance that does not come up: a VM's console, which KubeVirt keeps as the
log of a container beside it, or what vmrunner's own containers of a pod wrote."""

from __future__ import annotations

from typing import Final

from vmrunner.model import Ref
from vmrunner.providers.common.call_failed import CallFailed
from vmrunner.providers.common.console import CONSOLE_BYTES
from vmrunner.providers.kubernetes import error_codes
from vmrunner.providers.kubernetes.client import PODS, KubeClient
from vmrunner.providers.kubernetes.error_codes import UNKNOWN_KIND
from vmrunner.providers.kubernetes.labels import split
from vmrunner.providers.kubernetes.states import OURS

#: KubeVirt's own, of a VM with `logSerialConsole`.
GUEST_LOG: Final = "guest-console-log"
_LAUNCHER: Final = "kubevirt.io=virt-launcher,vmrunner/instance={name}"


def read(client: KubeClient, ref: Ref) -> str:
    """The end of it, at most 64 KiB; "": nothing was written, or it is gone. Raises
    `CallFailed`."""
    name, _ = split(ref.id)
    for container in (OURS, "lay"):
        if text := _log(client, name, container):
            return text
    launchers = client.page(PODS, labelSelector=_LAUNCHER.format(name=name)).get("items") or ()
    for launcher in launchers:
        if text := _log(client, str(launcher["metadata"]["name"]), GUEST_LOG):
            return text
    return ""


def _log(client: KubeClient, pod: str, container: str) -> str:
    try:
        return client.log(pod, container, limit=CONSOLE_BYTES)
    except CallFailed as failed:
        # A container that has not begun has no log, which is told as a bad request.
        if error_codes.is_missing(failed) or failed.code in ("BadRequest", UNKNOWN_KIND):
            return ""
        raise
