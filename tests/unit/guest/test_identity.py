"""What a VM makes of the identity that it is given, and when it ends itself."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from vmrunner.guest import identity
from vmrunner.guest.state import Place

WHO: dict[str, Any] = {
    "hostname": "vm-1",
    "machine_id": "0123456789abcdef0123456789abcdef",
    "boot_id": "01234567-89ab-cdef-0123-456789abcdef",
    "host_key": "private\n",
    "host_public": "public\n",
    "user_key": "ssh-ed25519 AAAA\n",
    "deadline": 0.0,
    "ttl": 0.0,
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(str(tmp_path / "run"), str(tmp_path / "lib"))
    place.make()
    return place


def test_it_takes_names_and_keys_as_told(place: Place, tmp_path: Path) -> None:
    root = tmp_path / "root"
    key = root / "etc/ssh/ssh_host_ed25519_key"
    key.parent.mkdir(parents=True)
    key.write_text("the template's, and a longer one")
    key.chmod(0o644)
    identity.assume(place, WHO, root=str(root))
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("private\n", 0o600)
    assert (root / "root/.ssh/authorized_keys").read_text() == WHO["user_key"]
    assert (root / "etc/machine-id").read_text().strip() == WHO["machine_id"]
    assert "vm-1" in (root / "etc/hosts").read_text()
    assert Path(place.box, "boot_id").read_text().strip() == WHO["boot_id"]
    assert place.woke()


def test_a_vm_that_booted_keeps_its_boot_id(place: Place, tmp_path: Path) -> None:
    identity.assume(place, {**WHO, "boot_id": None}, root=str(tmp_path / "root"))
    assert not place.woke()


def test_it_has_an_end_before_it_has_a_name(place: Place, tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        identity.assume(place, {"deadline": 1.0, "ttl": 1.0}, root=str(tmp_path))
    assert json.loads(place.read("deadline"))[0] == 1.0


@pytest.mark.parametrize(
    ("deadline", "ttl", "over"), [(600, 600, False), (-1, 600, True), (600, -1, True)]
)
def test_it_ends_by_either_clock(
    place: Place, tmp_path: Path, deadline: float, ttl: float, over: bool
) -> None:
    assert not identity.overdue(place), "nobody told it an end"
    facts = {**WHO, "deadline": time.time() + deadline, "ttl": ttl}
    identity.assume(place, facts, root=str(tmp_path / "root"))
    assert identity.overdue(place) is over
