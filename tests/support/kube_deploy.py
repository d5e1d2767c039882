"""What `deploy/kubernetes/` has, judged and applied as an operator would: by the published schemas,
and by Debian's kubectl."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import jsonschema
import kubernetes_validate
import yaml
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

PLACE: Final = Path(__file__).parents[2] / "deploy/kubernetes"
CHART: Final = PLACE / "chart"
#: The order in which `kubectl apply -f namespace.yaml -f .` takes them.
FILES: Final = ("namespace", "account", "network", "quota", "role")
#: The oldest whose fields we may use, and the newest there is.
VERSIONS: Final = ("v1.33.0", "v1.37.0")
_SCHEMAS: Final = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema"

JSON = dict[str, Any]


def documents(name: str) -> list[JSON]:
    """The objects of one file."""
    return list(yaml.safe_load_all((PLACE / f"{name}.yaml").read_text()))


def problems(body: Mapping[str, Any], version: str) -> list[str]:
    """What the strict schema of a version of Kubernetes does not allow."""
    folder = _SCHEMAS / f"{version}-local-strict"
    group, slash, of = body["apiVersion"].partition("/")
    api = f"{group.partition('.')[0]}-{of}" if slash else group

    def local(uri: str) -> Resource[Any]:
        text = (folder / uri.rsplit("/", 1)[-1]).read_text()
        return Resource.from_contents(json.loads(text), default_specification=DRAFT7)

    schema = json.loads((folder / f"{body['kind'].lower()}-{api}.json").read_text())
    validator = jsonschema.Draft7Validator(schema, registry=Registry(retrieve=local))
    return [f"{list(e.path)}: {e.message[:100]}" for e in validator.iter_errors(dict(body))]


def kubectl(config: Path, *words: str, given: str = "") -> str:
    """What Debian's kubectl writes; an error is the test's."""
    program = shutil.which("kubectl")
    assert program is not None, "kubectl is missing: apt-get install kubectl"
    line = [program, "--kubeconfig", str(config), "--cache-dir", str(config.parent / "cache")]
    done = subprocess.run([*line, *words], input=given, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def apply(config: Path, bodies: Iterable[Mapping[str, Any]]) -> str:
    """Apply these, in order."""
    return kubectl(config, "apply", "-f", "-", given=yaml.safe_dump_all(map(dict, bodies)))
