#!/bin/sh
# What is in the image, for who must know whether a flaw concerns it: CycloneDX, from dpkg's list.
# No date and no serial number: the same packages make the same bytes.
set -eu
mkdir -p /etc/vmrunner
python3 - >/etc/vmrunner/sbom.cdx.json <<'PYTHON'
import json
import subprocess
from urllib.parse import quote

release = dict(
    line.rstrip().replace('"', "").split("=", 1) for line in open("/etc/os-release") if "=" in line
)
distro = f"{release['ID']}-{release.get('VERSION_ID', release.get('VERSION_CODENAME', ''))}"
fields = "${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\n"
told = subprocess.run(["dpkg-query", "-W", "-f", fields], capture_output=True, text=True, check=True)
packages = sorted(line.split("\t")[1:] for line in told.stdout.splitlines() if line[1] == "i")
document = {
    "bomFormat": "CycloneDX",
    "specVersion": "1.5",
    "version": 1,
    "metadata": {
        "component": {"type": "operating-system", "name": release["ID"], "version": distro}
    },
    "components": [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/{release['ID']}/{quote(name)}@{quote(version, safe='')}"
            f"?arch={architecture}&distro={quote(distro)}",
        }
        for name, version, architecture in packages
    ],
}
print(json.dumps(document, indent=1))
PYTHON
