"""Boot one VM with an allow-list in a network with nothing real in it and print, as JSON, what root
in its guest reaches.

    unshare --net --mount python -m tests.vm.allow_wall CACHE DIRECTORY
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from pathlib import Path

from tests.support import allow_probe, allow_world, named_servers
from tests.vm import stand_in
from tests.vm.qemu_fixture import Machine, make_provider
from tests.vm.wall import GATEWAYS

ADDRESSES = (
    *("10.0.2.2", "10.0.2.3", "198.18.0.1", stand_in.INTERNET, stand_in.RESOLVER),
    *(*stand_in.HOST[:3], *stand_in.OTHERS),
)


def main(cache: Path, directory: Path) -> None:
    pem = named_servers.certificate(directory / "cert.pem")
    stand_in.build(lambda: named_servers.serve(pem, stand_in.TOKEN))
    provider = make_provider(directory, cache=cache, accel="tcg", dns=stand_in.RESOLVER)
    vm = Machine.order_one(provider, directory, network=allow_world.ALLOW, ttl=400)
    ref = provider.create(vm.order)
    try:
        started = time.monotonic()
        vm.wait_booted()
        booted = time.monotonic()
        targets = allow_world.targets_of(GATEWAYS[1], list(ADDRESSES), flood=300)
        source = Path(allow_probe.__file__).read_text()
        word = shlex.quote(json.dumps(targets))
        done = vm.ssh(f"python3 - {word} <<'EOP'\n{source}\nEOP", timeout=240)
        assert done.returncode == 0, done.stderr
        print(
            f"boot {booted - started:.1f} s, tries {time.monotonic() - booted:.1f} s",
            file=sys.stderr,
        )
        print(json.dumps({"token": stand_in.TOKEN, "found": json.loads(done.stdout)}))
    finally:
        provider.delete([ref])
        vm.wait_dead(10)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
