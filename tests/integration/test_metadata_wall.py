"""The guest's own block of its cloud's metadata services, loaded twice in a network of its own that
has both: what is dropped there, and that DNS, time and DHCP are not."""

from __future__ import annotations

import json
import re
import subprocess
import sys

from vmrunner.lib import resources

RULES = resources.GUEST / "metadata.nft"
METADATA, WIRE_SERVER, OTHER = "169.254.169.254", "168.63.129.16", "192.0.2.1"
#: A datagram that is dropped on its way out is refused at once; a connection is not.
PROBE = """
import json, socket, sys
said = {}
for address in sys.argv[1:]:
    for port in (53, 67, 80, 123, 32526):
        with socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                udp.sendto(b"x", (address, port))
                said[f"{address} udp {port}"] = True
            except PermissionError:
                said[f"{address} udp {port}"] = False
    for port in (53, 80):
        with socket.create_server((address, port)), socket.socket() as tcp:
            tcp.bind((sys.argv[-1], 0))  # or the answers would go to a service's address too
            tcp.settimeout(1 if port == 80 else 60)
            try:
                tcp.connect((address, port))
                said[f"{address} tcp {port}"] = True
            except TimeoutError:
                said[f"{address} tcp {port}"] = False
print(json.dumps(said))
"""
SCRIPT = """
set -e
ip link set lo up
for address in "$3" "$4" "$5"; do ip address add "$address/32" dev lo; done
nft -f "$1"
nft -f "$1"
exec "$2" -c "$6" "$3" "$4" "$5"
"""


def test_nobody_asks_a_metadata_service_and_names_are_found() -> None:
    words = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", SCRIPT, "sh"]
    words += [str(RULES), sys.executable, METADATA, WIRE_SERVER, OTHER, PROBE]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    answer: dict[str, bool] = json.loads(done.stdout)
    passes = {name for name, through in answer.items() if through}
    assert {name for name in answer if name.startswith(OTHER)} <= passes
    assert {name for name in passes if not name.startswith(OTHER)} == {
        *(f"{METADATA} {name}" for name in ("udp 53", "udp 123", "tcp 53")),
        *(f"{WIRE_SERVER} {name}" for name in ("udp 53", "udp 67", "tcp 53")),
    }


def test_containers_are_held_to_the_same_as_root() -> None:
    """What a container sends comes in by a bridge, what root sends goes out."""
    chains = re.findall(
        r"chain \w+ \{[^\n]* hook (\w+) priority raw\n(.*?)\n  \}", RULES.read_text(), re.S
    )
    assert [hook for hook, _ in chains] == ["prerouting", "output"]
    assert chains[0][1] == chains[1][1]
