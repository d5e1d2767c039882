"""An exec plugin of a kubeconfig: a program that tells a user's credentials by a JSON protocol
(https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from vmrunner.errors import ConfigError

_VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
TIMEOUT: Final = 60.0  # seconds that it may take


def run(
    plugin: Mapping[str, Any], base: Path, where: str, cluster: Mapping[str, Any]
) -> dict[str, Any]:
    """The `status` that it answers. `base`: the directory of its kubeconfig, `where`: names it in
    messages, `cluster`: what it is told of the cluster where it wants that. Raises ConfigError,
    which shows no argument of it."""
    version, command = str(plugin.get("apiVersion")), str(plugin.get("command"))
    if version not in _VERSIONS:
        fix = f"one that speaks {_VERSIONS[0]}"
        raise ConfigError(f"{where}: exec: apiVersion {version!r}", hint=fix)
    spec: dict[str, Any] = {"interactive": False}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = cluster
    request = {"kind": "ExecCredential", "apiVersion": version, "spec": spec}
    program = str(base / command) if "/" in command else command
    hint = " ".join(str(plugin.get("installHint") or f"run {command}, and mend it").split())
    try:
        more = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or ()}
        done = subprocess.run(
            [program, *map(str, plugin.get("args") or ())],
            env={**os.environ, **more, "KUBERNETES_EXEC_INFO": json.dumps(request)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT,
            check=True,
        )
        return dict(json.loads(done.stdout)["status"])
    except subprocess.CalledProcessError as error:
        last = "".join(error.stderr.decode(errors="replace").strip().splitlines()[-1:])
        shown = "".join(c if c.isprintable() else "?" for c in last[:200])
        words = f"exit code {error.returncode}: {shown}"
        raise ConfigError(f"{where}: exec {command}: {words}", hint=hint) from error
    except subprocess.TimeoutExpired:  # its words show the arguments
        words = f"no answer within {TIMEOUT:.0f} s"
        raise ConfigError(f"{where}: exec {command}: {words}", hint=hint) from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        words = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        raise ConfigError(f"{where}: exec {command}: {words}", hint=hint) from error
