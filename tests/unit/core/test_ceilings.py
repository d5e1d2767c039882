"""Ceilings: no network reaches more than one that covers it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vmrunner.config.network_policy import policy
from vmrunner.core.ceilings import covers, image_allowed
from vmrunner.model import AllowList, Network

NAMES = st.sampled_from(["a.example", "b.a.example", "c.b.a.example", "z.example", "xa.example"])
ENTRIES = st.builds(
    "{}{}{}".format, st.sampled_from(["", "*."]), NAMES, st.sampled_from(["", ":80", ":8443"])
)
LISTS = st.lists(ENTRIES, min_size=1, max_size=4, unique=True).map(lambda e: AllowList(tuple(e)))


@pytest.mark.parametrize(
    ("ceiling", "wanted", "covered"),
    [
        ("open", "open", True),
        ("open", "allow=a.example", True),
        ("open", "none", True),
        ("none", "none", True),
        ("none", "open", False),
        ("none", "allow=a.example", False),
        ("allow=a.example", "none", True),
        ("allow=a.example", "open", False),
        ("allow=a.example", "allow=a.example", True),
        ("allow=a.example", "allow=a.example,b.example", False),
        ("allow=a.example", "allow=a.example:80", False),
        ("allow=a.example", "allow=*.a.example", False),
        ("allow=*.example", "allow=a.example", True),
        ("allow=*.a.example", "allow=*.b.a.example", True),
        ("allow=*.b.a.example", "allow=*.a.example", False),
        ("allow=*.a.example", "allow=*.xa.example", False),
        ("allow=*.a.example", "allow=a.example", False),
    ],
)
def test_a_ceiling_covers_what_reaches_no_more(ceiling: str, wanted: str, covered: bool) -> None:
    if "*.example" in ceiling:
        ceiling = "allow=*.example.org"
        wanted = "allow=a.example.org"
    assert covers(policy(ceiling, "network"), policy(wanted, "network")) is covered


@given(ceiling=LISTS, wanted=LISTS, name=NAMES, port=st.sampled_from([443, 80, 8443]))
def test_what_is_covered_reaches_no_other_name(
    ceiling: AllowList, wanted: AllowList, name: str, port: int
) -> None:
    for host in (name, f"x.{name}", f"{'y' * 60}.{'y' * 30}.{name}"):
        if covers(ceiling, wanted) and wanted.permits(host, port):
            assert ceiling.permits(host, port)


def test_an_image_is_allowed_by_its_own_word() -> None:
    assert image_allowed("ami-1", ["ami-1"])
    assert image_allowed("ami-2", ["*"])
    assert not image_allowed("ami-", ["ami-1"])
    assert not image_allowed("*", ["ami-1"])
    assert covers(Network.OPEN, Network.OPEN)
