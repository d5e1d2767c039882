"""What `network` may be, and what an allow-list lets through."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from tests.support.ledger_builds import spec
from vmrunner.config.build_request import BuildRequest
from vmrunner.config.network_policy import MOST_HOSTS, policy
from vmrunner.config.policy_field import Policy
from vmrunner.core.pools import serves, shape_of
from vmrunner.errors import ConfigError
from vmrunner.ledger import row_codec as codec
from vmrunner.model import AllowList, Network, PoolSpec, network_of

SCHEMA = TypeAdapter(Policy).json_schema()
LONG = ".".join(["a" * 60] * 5)


def allow(*entries: object) -> AllowList:
    found = policy({"allow": list(entries)}, "network")
    assert isinstance(found, AllowList)
    return found


@pytest.mark.parametrize(
    ("entry", "kept"),
    [
        ("packages.example.org", "packages.example.org"),
        ("Packages.Example.ORG:443", "packages.example.org"),
        ("*.example.net:443", "*.example.net"),
        ("deb.example.org:80", "deb.example.org:80"),
        ("*.example.net:08443", "*.example.net:8443"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("*.bücher.example", "*.xn--bcher-kva.example"),
    ],
)
def test_an_entry_is_kept_in_one_way(entry: str, kept: str) -> None:
    assert allow(entry).allow == (kept,)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"allow": []}, "network: allow is empty"),
        ({"allow": "example.org"}, "network: allow is 'example.org', not a list"),
        ({"allow": [7]}, "network: 7 is not text"),
        ({"allow": [""]}, "network: empty"),
        ({"allow": ["a.example.org"] * 2}, "network: 'a.example.org' and 'a.example.org' are the"),
        ({"allow": ["a.example.org", "A.example.org:443"]}, "network: 'A.example.org:443' and 'a"),
        (
            {"allow": [f"h{n}.example.org" for n in range(MOST_HOSTS + 1)]},
            "network: allow has 101 entr",
        ),
        ({"allow": ["10.0.0.1"]}, "network: '10.0.0.1' is an address"),
        ({"allow": ["0x7f.1"]}, "network: '0x7f.1' is an address"),
        ({"allow": ["169.254.169.254:80"]}, "network: '169.254.169.254:80' is an address"),
        ({"allow": ["[::1]:443"]}, "network: '[::1]:443' is an address"),
        ({"allow": ["fe80::1"]}, "network: 'fe80::1' is an address"),
        ({"allow": ["*"]}, "network: '*' has a * in a name"),
        ({"allow": ["a.*.example.org"]}, "network: 'a.*.example.org' has a * in a name"),
        ({"allow": ["*.*.org"]}, "network: '*.*.org' has a * in a name"),
        ({"allow": ["*a.example.org"]}, "network: '*a.example.org' has a * in a name"),
        ({"allow": ["*.org"]}, "network: '*.org' would let a whole top-level domain in"),
        ({"allow": ["localhost"]}, "network: 'localhost' has one label only"),
        ({"allow": ["example.org."]}, "network: 'example.org.' ends in a dot"),
        ({"allow": ["an example.org"]}, "network: 'an example.org' is no name of a host"),
        ({"allow": ["under_score.example.org"]}, "network: 'under_score.example.org' is no name"),
        ({"allow": ["-a.example.org"]}, "network: '-a.example.org' is no name of a host"),
        ({"allow": ["a..org"]}, "network: 'a..org' is no name of a host"),
        ({"allow": [LONG]}, "network: 'aaaa"),
        ({"allow": ["https://example.org"]}, "network: 'https://example.org' is more than a name"),
        ({"allow": ["example.org/path"]}, "network: 'example.org/path' is more than a name"),
        ({"allow": ["example.org:"]}, "network: 'example.org:' has no port after the colon"),
        ({"allow": ["example.org:0"]}, "network: 'example.org:0' has no port after the colon"),
        ({"allow": ["example.org:65536"]}, "network: 'example.org:65536' has no port"),
        ({"allow": ["example.org:https"]}, "network: 'example.org:https' has no port"),
        ({"allow": ["github.com:22"]}, "network: 'github.com:22' is a port of SSH"),
        ({"allow": ["dns.example.org:53"]}, "network: 'dns.example.org:53' is a port of DNS"),
        ({"allow": ["\u2488.example"]}, "network: '\u2488.example' is no international name"),
        ({"deny": ["example.org"]}, "network: a table with 'deny'"),
        ({"allow": ["example.org"], "deny": []}, "network: a table with 'allow', 'deny'"),
        ({}, "network: a table with nothing"),
        ("allow=", "network: empty"),
        ("allow=a.example.org,,b.example.org", "network: empty"),
        ("some", "network: no policy 'some' (one of: open, none, allow=HOST[:PORT],…)"),
        (7, "network: 7 is not text"),
    ],
)
def test_a_refusal_has_field_value_and_fix(value: Any, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        BuildRequest(network=value)
    assert str(refused.value).startswith(message)
    assert refused.value.hint


LABELS = st.text(alphabet="aZ09-éß𝐚中", min_size=1, max_size=5)
ENTRIES = st.builds(
    lambda wildcard, labels, port: f"{wildcard}{'.'.join(labels)}{port}",
    st.sampled_from(["", "*."]),
    st.lists(LABELS, min_size=1, max_size=3),
    st.one_of(st.just(""), st.integers(0, 99_999).map(lambda port: f":{port}")),
)


@example(["a.𝐚"])
@example(["a.1-2"])
@given(st.lists(ENTRIES, min_size=1, max_size=3))
def test_no_schema_forbids_what_is_taken(entries: list[str]) -> None:
    """A client that checks what it sends refuses nothing that a server takes."""
    for value in ({"allow": entries}, f"allow={','.join(entries)}"):
        try:
            policy(value, "network")
        except ConfigError:
            continue
        jsonschema.validate(value, SCHEMA)


def test_one_word_and_a_table_say_the_same() -> None:
    network = BuildRequest(network="allow=a.example.org,*.example.net:8443").network
    assert (
        network == BuildRequest(network={"allow": ["a.example.org", "*.example.net:8443"]}).network
    )
    assert network == BuildRequest(network=network).network
    assert str(network) == "allow=a.example.org,*.example.net:8443"
    assert BuildRequest(network="none").network is Network.NONE


def test_a_document_has_the_policy_as_it_was_asked() -> None:
    given = allow("a.example.org", "*.example.net:8443")
    assert given.value == {"allow": ["a.example.org", "*.example.net:8443"]}
    assert network_of(given.value) == given
    assert [network_of(network.value) for network in Network] == list(Network)


@pytest.mark.parametrize(
    ("name", "port", "passes"),
    [
        ("packages.example.org", 443, True),
        ("packages.example.org", 8443, False),
        ("packages.example.org", 80, False),
        ("x.packages.example.org", 443, False),
        ("example.org", 443, False),
        ("a.example.net", 8443, True),
        ("a.b.example.net", 8443, True),
        ("a.example.net", 443, False),
        ("example.net", 8443, False),
        (".example.net", 8443, False),
        ("evilexample.net", 8443, False),
        ("a.example.net.evil.com", 8443, False),
        ("deb.example.org", 80, True),
        (f"{'a' * 63}.{'b' * 36}.example.net", 8443, True),
        (f"{'a' * 63}.{'b' * 37}.example.net", 8443, False),
    ],
)
def test_names_and_ports_are_compared_whole(name: str, port: int, passes: bool) -> None:
    found = allow("packages.example.org", "*.example.net:8443", "deb.example.org:80")
    assert found.permits(name, port) is passes


def test_rows_of_before_and_of_now_are_read() -> None:
    made = spec(network=allow("a.example.org", "*.example.net:8443"))
    text = codec.spec_text(made)
    assert '"network":{"allow":["a.example.org","*.example.net:8443"]}' in text
    assert codec.spec_from(text) == made
    for network in Network:
        old = codec.spec_text(spec(network=network))
        assert f'"network":"{network}"' in old
        assert codec.spec_from(old).network is network


def test_a_pools_shape_has_its_allow_list() -> None:
    pools = {}
    for network in (Network.OPEN, allow("a.example.org"), allow("b.example.org")):
        pool = PoolSpec(name="p", provider="local", container="c", network=network)
        assert codec.pool_spec_from(codec.pool_spec_text(pool)) == pool
        pools[shape_of(pool)] = pool
        assert serves(pool, spec(provider="local", container="c", network=network))
    assert len(pools) == 3
    assert not serves(pool, spec(provider="local", container="c"))


def test_a_wildcard_names_nobody_by_itself() -> None:
    found = allow("packages.example.org", "*.example.net:8443")
    assert found.knows("a.example.net")
    assert not found.names("a.example.net")
    assert found.names("packages.example.org")
    assert found.ports == {443, 8443}
