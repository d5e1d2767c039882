"""`vmrunner.yml`: read as people mean it, refused with line, key and fix."""

from __future__ import annotations

import json
import resource
import tracemalloc
from contextlib import suppress
from pathlib import Path

import jsonschema
import pytest
import yaml as pyyaml

from tests.support.job_files import chosen
from vmrunner.config import jobfile, yaml
from vmrunner.errors import ConfigError
from vmrunner.model import Network

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


FULL = """\
version: 1
jobs:
  test:
    container: debian:trixie
    provider: local
    image: default
    docker: false
    network: none
    source: .
    env: {CI: true, VERSION: 1.10, MODE: 0755, COUNTRY: no, AT: 12:30, EMPTY: ~}
    secrets: [PYPI_TOKEN, KEY=@key.txt]
    steps:
      - make
      - [make, -j, 4]
      - name: tests
        run: |
          make test
          make report
        timeout: 20m
        env: {A: b}
      - argv: [true]
    artifacts:
      - dist/*
      - {path: report.xml, always: true}
    timeout: 30m
    ttl: 3600
    queue_timeout: 1h
    keep_on_failure: 20m
    labels: {team: core, release: 2.0}
    cpus: 4
    memory: 8GiB
    disk: 20GiB
    spot: true
    retry_on_loss: true
    priority: 3
"""


def test_every_key(tmp_path: Path) -> None:
    path = tmp_path / "vmrunner.yml"
    path.write_text(FULL)
    name, job, directory, *_ = jobfile.choose(path, None)
    assert (name, directory) == ("test", tmp_path)
    assert job.env == {
        "CI": "true",
        "VERSION": "1.10",
        "MODE": "0755",
        "COUNTRY": "no",
        "AT": "12:30",
        "EMPTY": "~",
    }
    assert job.labels == {"team": "core", "release": "2.0"}
    assert [step.run for step in job.steps] == ["make", None, "make test\nmake report\n", None]
    assert [step.argv for step in job.steps] == [None, ["make", "-j", "4"], None, ["true"]]
    assert job.steps[2].timeout == 1200
    assert [(a.path, a.always) for a in job.artifacts] == [("dist/*", False), ("report.xml", True)]
    assert (job.timeout, job.ttl, job.memory) == (1800, 3600, 8 << 30)
    assert job.network is Network.NONE
    assert job.spot is True


def test_anchors_and_merge_keys_work() -> None:
    text = b"jobs:\n  a: &a\n    steps: [ls]\n    timeout: 1m\n  b:\n    <<: *a\n    timeout: 2m\n"
    a, b = (chosen(text, name).job for name in "ab")
    assert b.steps == a.steps
    assert (a.timeout, b.timeout) == (60, 120)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "vmrunner.yml: empty"),
        ("jobs: {}", "vmrunner.yml:1: jobs: "),
        ("- a", 'vmrunner.yml:1: the file: ["a"]: '),
        ("jobs:\n  a: {}", "vmrunner.yml:2: jobs.a.steps: missing"),
        ("jobs:\n  a:\n    steps: []", "vmrunner.yml:3: jobs.a.steps: []: "),
        (
            "jobs:\n  a:\n    steps: [ls]\n    timeuot: 3m",
            "vmrunner.yml:4: jobs.a.timeuot: no such key (did you mean 'timeout'?)",
        ),
        (
            "jobs:\n  a:\n    steps:\n      - run: ls\n        nmae: x",
            "vmrunner.yml:5: jobs.a.steps[0].nmae: no such key (did you mean 'name'?)",
        ),
        (
            "jobs:\n  a:\n    steps: [ls]\n    timeout: soon",
            "vmrunner.yml:4: jobs.a.timeout: 'soon': not a duration (write it like 30m",
        ),
        (
            "jobs:\n  a:\n    steps: [ls]\n    timeout: 1:30",
            "vmrunner.yml:4: jobs.a.timeout: '1:30': not a duration",
        ),
        (
            "jobs:\n  a:\n    steps: [{run: x, argv: [y]}]",
            "a step needs `run` or `argv` (give exactly one of the two)",
        ),
        (
            "jobs:\n  a:\n    steps: [ls]\n    network: no",
            "vmrunner.yml:4: jobs.a.network: 'no': neither 'open' nor 'none' nor a table",
        ),
        ("version: 2\njobs: {a: {steps: [ls]}}", "vmrunner.yml:1: version: 2: "),
        ("jobs:\n  a:\n    steps: [ls]\n    steps: [x]", "vmrunner.yml:3: 'steps' is there twice"),
        ("jobs: [", "vmrunner.yml:1: not valid YAML: "),
        ("jobs:\n  a:\n    steps: [*x]", "vmrunner.yml:3: not valid YAML: found undefined alias"),
        ("a: &a [*a]", "vmrunner.yml:1: an alias makes it endless"),
        ("jobs: {a: {steps: [!!python/object:os.system x]}}", "vmrunner.yml:1: no tag "),
        ("? [a]\n: b", "vmrunner.yml:1: a key must be text"),
    ],
)
def test_an_error_is_one_line_with_place_key_and_fix(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        chosen(text.encode())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text() -> None:
    for data in (b"\xff\xff", b"\xff\xfe\x00", b"a: \x00"):
        with pytest.raises(ConfigError, match=r"^vmrunner.yml: not valid YAML"):
            chosen(data)


def test_each_key_is_looked_at_once() -> None:
    """Counted in looks, not in seconds: 20,000 of them were 200 million looks."""

    class Key(str):
        looks = 0
        __slots__ = ()

        def __eq__(self, other: object) -> bool:
            Key.looks += 1
            return str.__eq__(self, other)

        __hash__ = str.__hash__

    loader = pyyaml.SafeLoader("".join(f"k{n}: 1\n" for n in range(500)))
    node = loader.get_single_node()
    for key, _ in node.value:
        key.value = Key(key.value)
    table = yaml._Reader("x", lambda _: False, loader).value(node, ())
    assert len(table) == 500
    assert Key.looks < 5000


def test_merges_of_merges_do_not_blow_up() -> None:
    """What PyYAML before 6.0.4 takes gigabytes for."""
    text = "{k: v}"
    for level in range(8):
        text = f"{{<<: [&a{level} {text}" + f",*a{level}" * 9 + "]}"
    tracemalloc.start()
    try:
        with suppress(ConfigError):
            yaml.parse(f"x: {text}\n".encode(), "x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 << 20


def test_one_mapping_merged_again_and_again_is_refused_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Little comes of it, and a megabyte of it would take minutes."""
    merged: list[int] = []
    flatten = pyyaml.SafeLoader.flatten_mapping

    def counted(loader: pyyaml.SafeLoader, node: pyyaml.MappingNode) -> None:
        flatten(loader, node)
        merged.append(len(node.value))

    monkeypatch.setattr(pyyaml.SafeLoader, "flatten_mapping", counted)
    keys = ", ".join(f"k{n}: 1" for n in range(1000))
    text = f"d: &d {{{keys}}}\nx: {{<<: [{', '.join(['*d'] * 1000)}]}}\n"
    with pytest.raises(ConfigError, match="f:1: not valid YAML: merged too often: more than"):
        yaml.parse(text.encode(), "f")
    assert sum(merged) < 250_000


def test_aliases_cannot_blow_up() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
    with pytest.raises(ConfigError, match="too large: more than"):
        yaml.parse("\n".join(lines).encode(), "f")


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(ConfigError):
        yaml.parse(b"[" * 100_000, "f")


def test_jobs_are_chosen_by_name(tmp_path: Path) -> None:
    path = tmp_path / "j.yml"
    path.write_text("jobs:\n  build: {steps: [make]}\n  test: {steps: [make test]}\n")
    assert jobfile.choose(path, "test").name == "test"
    with pytest.raises(ConfigError, match=r"job: .* has several, and none is named \(one of: bu"):
        jobfile.choose(path, None)
    with pytest.raises(ConfigError, match=r"job: no job 'tets' .*did you mean 'test'"):
        jobfile.choose(path, "tets")
    with pytest.raises(ConfigError, match="file: no file"):
        jobfile.choose(tmp_path / "none.yml", None)
    with pytest.raises(ConfigError, match="cannot be read"):
        jobfile.choose(tmp_path, None)


def test_a_file_without_end_is_refused() -> None:
    """It was read whole, until memory ran out."""
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, limits[1]))
    try:
        with pytest.raises(ConfigError, match="/dev/zero: larger than 1 MiB"):
            jobfile.choose(Path("/dev/zero"), None)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def test_the_published_schema_is_in_step() -> None:
    published = json.loads((ROOT / "docs" / "vmrunner.schema.json").read_text())
    assert published == jobfile.schema(), (
        "run: vmrunner config schema --job > docs/vmrunner.schema.json"
    )


def test_the_schema_accepts_what_we_accept_and_refuses_a_typo() -> None:
    schema = jobfile.schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    table, _ = yaml.parse(FULL.encode(), "f", raw=jobfile._is_text)
    jsonschema.validate(table, schema)
    demo = (ROOT / "examples" / "demo" / "vmrunner.yml").read_bytes()
    jsonschema.validate(yaml.parse(demo, "demo")[0], schema)
    assert chosen(demo).job.steps
    for bad in ({"timeuot": "3m"}, {"steps": [{"rnu": "x"}]}, {"network": "some"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"jobs": {"a": {"steps": ["ls"]} | bad}}, schema)


def complaints(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        chosen(text.encode(), "a")
    return str(caught.value).splitlines()


def test_everything_wrong_is_told_at_once_with_its_line() -> None:
    messages = complaints(
        "jobs:\n  a:\n    steps: [ls]\n    timeuot: 3m\n    memory: lots\n"
        "    env: {1A: x}\n    labels: {a b: c}\n    artifacts: [../x]\n    ttl: 5m\n"
        "    timeout: 9m\n    secrets: [A=b, 'B=@f']\n    container: De bian\n    disk: 1MiB\n"
        "  b:\n    stesp: [ls]"
    )
    assert [text.partition(": ")[0] for text in messages] == [
        f"vmrunner.yml:{line}" for line in (4, 5, 6, 7, 8, 9, 11, 12, 13, 15)
    ]
    assert "jobs.a.timeuot: no such key (did you mean 'timeout'?)" in messages[0]
    assert "jobs.a.memory: 'lots': not a size" in messages[1]
    assert "'1A' is not a variable's name" in messages[2]
    assert "'a b' is not a label's name" in messages[3]
    assert "'../x' is not below the work directory" in messages[4]
    assert (
        "jobs.a.ttl: 300.0: not longer" in messages[5]
        or "not longer than the timeout 9m" in messages[5]
    )
    assert "secrets[0]: A is given a value here (A, or A=@FILE)" in messages[6]
    assert "jobs.a.container: 'De bian' is not a container image's name" in messages[7]
    assert "1.0 MiB is too little (at least 1.0 GiB)" in messages[8]
    assert messages[-1] == "vmrunner.yml:15: jobs.b.stesp: no such key (did you mean 'steps'?)"


@pytest.mark.parametrize("key", ["container", "image", "provider", "source", "network", "timeout"])
@pytest.mark.parametrize("value", ['""', "", "~"])
def test_an_empty_value_is_an_error_and_never_the_default(key: str, value: str) -> None:
    (message,) = complaints(f"jobs:\n  a:\n    steps: [ls]\n    {key}: {value}")
    assert message.startswith(f"vmrunner.yml:4: jobs.a.{key}: ")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("docker: yes", "'yes': neither true nor false (write one of the two)"),
        ("artifacts: [{path: a, always: yes}]", "always: 'yes': neither true nor false"),
        ("cpus: 1.5", "cpus: 1.5: not a whole number"),
        ("cpus: many", "cpus: 'many': not a whole number"),
        ("priority: 99999999999", "priority: 99999999999 is too much (at most 2147483647)"),
        ("priority: 99999999999999999999", "priority: 99999999999999999999 is too much"),
        ("env: [a]", 'env: ["a"]: not a table (give names with their values)'),
        ("artifacts: {a: b}", 'artifacts: {"a": "b"}: not a list'),
        ("timeout: 0", "timeout: 0 leaves no time"),
    ],
)
def test_values_are_told_in_plain_words(keys: str, expected: str) -> None:
    (message,) = complaints(f"jobs:\n  a:\n    steps: [ls]\n    {keys}")
    assert expected in message


def test_what_all_jobs_share(tmp_path: Path) -> None:
    path = tmp_path / "vmrunner.yml"
    path.write_text(
        "x-common: &c {timeout: 9m}\nenv: {A: 1, B: 1}\n"
        "defaults: {container: alpine, env: {B: 2, C: 2}, artifacts: [log], network: none}\n"
        "jobs:\n  a: {<<: *c, steps: [ls], env: {C: 3}, artifacts: [out], network: open}\n"
        "  b: {steps: [ls]}"
    )
    a, b = (jobfile.choose(path, name).job for name in "ab")
    assert (a.env, b.env) == ({"A": "1", "B": "2", "C": "3"}, {"A": "1", "B": "2", "C": "2"})
    assert (a.container, b.container, a.timeout) == ("alpine", "alpine", 540)
    assert ([x.path for x in a.artifacts], [x.path for x in b.artifacts]) == (
        ["log", "out"],
        ["log"],
    )
    assert (a.network, b.network) == (Network.OPEN, Network.NONE)
    assert complaints("defaults: {steps: [x]}\njobs: {a: {steps: [x]}}")[0].startswith(
        "vmrunner.yml:1: defaults.steps: no such key"
    )


def test_a_job_knows_the_line_of_each_key_and_secret(tmp_path: Path) -> None:
    path = tmp_path / "j.yml"
    path.write_text(
        "defaults:\n  image: x\n  timeout: 1m\n  secrets: [A]\n"
        "jobs:\n  a:\n    steps: [ls]\n    timeout: 9m\n    secrets:\n    - B\n    - C"
    )
    chosen = jobfile.choose(path, None)
    found = [chosen.place(key) for key in ("timeout", "image", "secrets", "ttl")]
    assert found == [f"{path}:8: ", f"{path}:2: ", f"{path}:9: ", ""]
    lines = [chosen.place("secrets", text) for text in "ABCD"]
    assert lines == [f"{path}:{line}: " for line in (4, 10, 11, 9)]


@pytest.mark.parametrize(
    "broken",
    [
        "[a]", "3", "jobs: 3", "jobs: {}", "jobs: {a: 3}", "defaults: 3", "jobs: {a: {steps: 3}}",
        "env: 3\njobs: {a: {steps: [x], secrets: 3}}", "jobs: {a: {steps: [x], secrets: [3, {}]}}",
        "jobs: {a: {steps: [x], <<: {secrets: [a, b]}, secrets: [1=]}}", "version: 2", "x-a: 3",
        "jobs: {a: {secrets: {a: b}, 'steps ': [x]}}", "jobs: {a: {steps: [{run: x, env: 3}]}}",
    ],
)  # fmt: skip
def test_whatever_is_wrong_is_told(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "j.yml"
    path.write_text(broken)
    try:
        (fault,) = jobfile.choose(path, None).faults
    except ConfigError as error:
        fault = error
    assert all(line.startswith(f"{path}:") for line in str(fault).splitlines())
