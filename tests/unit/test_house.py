"""What a reader is told must be there: links, test names, the places of planted bugs. And the rules
of the code that no linter has."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bench.mutations import BUGS
from tests.conftest import wide
from vmrunner import model

ROOT = Path(__file__).parents[2]
CODE = ROOT / "vmrunner"
LOCAL_CLOUDS = ROOT / "localclouds/vmrunner_localclouds"
TESTS = (ROOT / "tests", ROOT / "localclouds/tests")
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "localclouds/README.md"])
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)")
TEST = re.compile(r"`((?:localclouds/)?tests/[\w/]+\.py)(?:::(\w+))?`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    missing = [to for to in LINK.findall(page.read_text()) if not (page.parent / to).exists()]
    assert missing == []


def test_each_promise_names_existing_tests_or_says_not_shown() -> None:
    text = (ROOT / "docs/guarantees.md").read_text()
    promises = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)[1:]
    assert [promise.split(".")[0] for promise in promises] == [str(n) for n in range(1, 10)]
    for promise in promises:
        named = TEST.findall(promise)
        assert named or "Not yet shown" in promise, promise.partition("\n")[0]
        for file, name in named:
            source = (ROOT / file).read_text()
            assert not name or f"def {name}(" in source, f"{file}::{name}"


def test_each_test_is_named_in_ten_words() -> None:
    for file in sorted(file for root in TESTS for file in root.rglob("*.py")):
        found = [
            node.name
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            and node.name.startswith("test_")
        ]
        long = [name for name in found if len(name.split("_")) > 11]
        twice = [name for name, count in Counter(found).items() if count > 1]
        assert (long, twice) == ([], []), file.relative_to(ROOT)


def test_make_test_looks_for_vms_where_they_are() -> None:
    with_vms = {
        path.parent.relative_to(ROOT)
        for path in (ROOT / "tests").rglob("test_*.py")
        if "mark.vm" in path.read_text() and path != Path(__file__)
    }
    parts = (ROOT / "scripts/test-parts").read_text().splitlines()
    (line,) = (line for line in parts if line.startswith("vms=("))
    assert with_vms == {Path(word) for word in re.findall(r"tests/\w+", line)}


def test_a_change_must_pass_all_of_make_test() -> None:
    parts = (ROOT / "scripts/test-parts").read_text()
    marks = dict(re.findall(r"^ +([\w-]+)\) .* -m '(.+?)'", parts, re.MULTILINE))
    for part, whole in (("plain", "all"), ("vms", "all-vms")):
        assert marks[part] == f"{marks[whole]} and not wide"
    makefile = (ROOT / "Makefile").read_text()
    assert "test-all: lint\n\t@scripts/test-parts image all all-vms\n" in makefile
    assert (ROOT / ".ci/run").read_text().endswith("\nexec make test-all\n")


def test_each_line_of_wide_tests_names_one() -> None:
    for line in wide():
        path, _, name = line.partition("::")
        assert f"def {name.partition('[')[0]}(" in (ROOT / path).read_text(), line


def test_make_test_shows_each_promise() -> None:
    """What `make test-all` adds is not the only test of any."""
    promises = (ROOT / "docs/guarantees.md").read_text().split("\n## ")[2:]
    listed = wide()
    for promise in promises[:9]:
        named = {f"{file}::{test}" for file, test in TEST.findall(promise) if test}
        assert named - listed, promise.splitlines()[0]


def test_a_part_that_fails_tells_what_was_not_run() -> None:
    program = [str(ROOT / "scripts/test-parts"), "no-such-part", "plain", "vms"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "NOT RUN: plain vms" in done.stderr


def test_the_licence_is_whole() -> None:
    licence = (ROOT / "LICENSE").read_text()
    assert licence.lstrip().startswith("Apache License")
    assert "END OF TERMS AND CONDITIONS" in licence


def test_each_planted_bug_has_its_place() -> None:
    """A bug whose text has moved is planted nowhere."""
    moved = [b.name for b in BUGS if (ROOT / b.path).read_text().count(b.old) != 1]
    assert moved == []


# --- names, layers, libraries --------------------------------------------------------------------


def modules(*roots: Path) -> Iterator[tuple[Path, ast.Module]]:
    for root in roots or (CODE,):
        for file in sorted(root.rglob("*.py")):
            yield file.relative_to(root), ast.parse(file.read_text())


def test_a_public_classs_name_means_one_class() -> None:
    names = Counter(
        node.name
        for _, module in modules()
        for node in module.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, count in names.items() if count > 1] == []


def test_each_public_number_says_of_what() -> None:
    """`CANCEL_GRACE`, not `GRACE`."""
    vague = "AGAIN BATCH EVERY FIRST GRACE KEPT LEASE LIMIT LONGEST MOST PATIENCE PAUSE RETRY WAIT"
    named = [
        f"{file}: {target.id}"
        for file, module in modules()
        for node in module.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in ([node.target] if isinstance(node, ast.AnnAssign) else node.targets)
        if isinstance(target, ast.Name) and target.id in vague.split()
    ]
    assert named == []


def test_no_function_has_a_name_of_the_former_house() -> None:
    """`told` says nothing of what."""
    former = "hear see told said fly land doom bury"
    named = [
        f"{file}: {node.name}"
        for file, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.strip("_") in former.split()
    ]
    assert named == []


#: They name how a sentence goes on, not what a value is.
FORMER_VALUES = """
asked births born deaths doom doomed dooms fares following had known lie lying manner one
rights said sight speech stone there told wish wished
"""
#: Of the port, and of what `costs` shows.
PUBLIC_VALUES = {
    ("vmrunner/model/money.py", "known"),
    ("vmrunner/providers/port.py", "told"),
}
#: A former release's own text.
FORMER_TEXT = "tests/data/"


def test_no_value_has_a_name_of_the_former_house() -> None:
    """A value is named after what it holds."""
    roots = (CODE, ROOT / "tests", LOCAL_CLOUDS.parent, ROOT / "deploy")
    named = [
        f"{path}:{node.lineno}: {name}"
        for root in roots
        for file, module in modules(root)
        if not str(path := (root / file).relative_to(ROOT)).startswith(FORMER_TEXT)
        for node in ast.walk(module)
        for name in bound(node)
        if name.strip("_") in FORMER_VALUES.split() and (str(path), name) not in PUBLIC_VALUES
    ]
    assert named == []


def bound(node: ast.AST) -> list[str]:
    """The names that a node of a module gives to values."""
    match node:
        case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
            return [name]
        case ast.Attribute(attr=name, ctx=ast.Store()) | ast.MatchAs(name=str(name)):
            return [name]
        case ast.ExceptHandler(name=str(name)):
            return [name]
        case _:
            return []


def test_no_module_has_the_name_of_its_packages_function() -> None:
    """Once somebody imports that module it takes the function's place."""
    taken = [
        f"{init}: {node.name}"
        for init, module in modules()
        if init.name == "__init__.py"
        for node in module.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef)
        if (CODE / init).with_name(f"{node.name}.py").exists()
        or (CODE / init).with_name(node.name).exists()
    ]
    assert taken == []


def test_no_call_of_a_frozen_generic_names_its_type() -> None:
    """Python 3.11 notes the type on the instance, which a frozen class with slots refuses."""
    frozen = {
        node.name
        for _, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.ClassDef)
        if any("Generic[" in ast.unparse(base) for base in node.bases)
        if any("frozen" in ast.unparse(decorator) for decorator in node.decorator_list)
    }
    assert "Column" in frozen
    called = [
        f"{file}:{node.lineno}"
        for file, module in modules()
        for node in ast.walk(module)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript)
        if ast.unparse(node.func.value).split(".")[-1] in frozen
    ]
    assert called == []


@pytest.mark.parametrize(
    "plant",
    [
        "from vmrunner.engine import engine\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import vmrunner.engine\n",
        "def late():\n    from vmrunner.engine.engine import Engine\n",
    ],
    ids=["plain", "for types", "late"],
)
def test_an_import_that_points_up_is_refused(plant: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for file in CODE.rglob("*.py"):
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    (tmp_path / "vmrunner/ledger/planted.py").write_text(plant)
    lint = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    done = subprocess.run(lint, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "vmrunner.ledger is not allowed to import vmrunner.engine" in done.stdout
    assert "vmrunner.ledger.planted -> vmrunner.engine" in done.stdout
    assert "1 broken." in done.stdout


#: Modules that share a top-level name with other distributions', or come with one that pins them.
DISTRIBUTIONS = {
    "azure.core": "azure-core",
    "azure.identity": "azure-identity",
    "azure.mgmt.compute": "azure-mgmt-compute",
    "azure.mgmt.computeschedule": "azure-mgmt-computeschedule",
    "azure.mgmt.network": "azure-mgmt-network",
    "google.api_core": "google-api-core",
    "google.auth": "google-auth",
    "jwt": "pyjwt",
    "google.cloud": "google-cloud-compute",
    "google.protobuf": "protobuf",
    "opentelemetry.exporter": "opentelemetry-exporter-otlp-proto-http",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
    "pydantic_core": "pydantic",
    "types_boto3": "types-boto3",
}
OWNERS = packages_distributions()


def test_every_noun_is_found_and_nothing_else() -> None:
    """They are loaded one by one: a name without its file would be noticed only where it is
    used."""
    assert all(getattr(model, name) for name in model.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = model.Nothing


#: What code in these places may need beside the dependencies of all.
EXTRAS = {
    "integrations/github": ("github",),
    "integrations/mcp": ("mcp",),
    "ledger": ("postgres",),
    "providers/azure": ("azure",),
    "providers/ec2": ("aws",),
    "providers/gce": ("gcp",),
    "server": ("server",),
    "services/telemetry": ("otel",),
}
LOCAL_CLOUDS_EXTRAS = {"azure": ("azure",), "ec2": ("ec2",), "gce": ("gce",)}


def test_each_imported_library_is_declared_where_it_is_needed() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())
    stubs = names(declared["dependency-groups"]["dev"])
    for root, needs in ((CODE, EXTRAS), (LOCAL_CLOUDS, LOCAL_CLOUDS_EXTRAS)):
        for file, module in modules(root):
            allowed = required(root, ())
            for place, extras in needs.items():
                if file.as_posix().startswith(f"{place}/"):
                    allowed |= required(root, extras)
            for name in sorted(imported(module)):
                owner = distribution(name)
                permitted = stubs if owner.startswith("types-") else allowed
                assert owner in permitted, f"{root.name}/{file}: {name}"


@cache
def required(package: Path, extras: tuple[str, ...]) -> frozenset[str]:
    """Names of what a distribution and its extras require; those of `vmrunner[…]` among them."""
    project = tomllib.loads((package.parent / "pyproject.toml").read_text())["project"]
    lines = [line for extra in extras for line in project["optional-dependencies"][extra]]
    found = set()
    for requirement in map(Requirement, (*project["dependencies"], *lines)):
        found.add(canonicalize_name(requirement.name))
        if requirement.name == "vmrunner":
            found |= required(CODE, tuple(requirement.extras))
    return frozenset(found)


def test_no_extra_brings_what_only_local_clouds_need() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"][
        "optional-dependencies"
    ]
    brought = {name: required(CODE, (name,)) for name in extras}
    for name, found in brought.items():
        assert not found & {"google-api-python-client", "moto", "werkzeug"}, name


@pytest.mark.parametrize("bench", sorted((ROOT / "bench").glob("*.py")), ids=lambda file: file.stem)
def test_what_a_bench_imports_of_ours_is_there(bench: Path) -> None:
    """Nothing but people plays most of them."""
    for node in ast.walk(ast.parse(bench.read_text())):
        module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
        if module.partition(".")[0] in ("bench", "tests", "vmrunner", "vmrunner_localclouds"):
            found = importlib.import_module(module)
            for name in (alias.name for alias in node.names):
                found_name = hasattr(found, name) or importlib.util.find_spec(f"{module}.{name}")
                assert found_name, f"{module}.{name}"


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[^\w.-]", line)[0].lower() for line in requirements}


def imported(module: ast.Module) -> set[str]:
    """Modules of other distributions."""
    found = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    ours = {*sys.stdlib_module_names, "vmrunner", "vmrunner_localclouds", "guest"}
    return {name for name in found if name.partition(".")[0] not in ours}


def distribution(module: str) -> str:
    for prefix, owner in DISTRIBUTIONS.items():
        if f"{module}.".startswith((f"{prefix}.", f"{prefix}_")):
            return owner
    return OWNERS[module.partition(".")[0]][0].lower().replace("_", "-")


def test_the_top_has_at_most_24_places() -> None:
    # A folder that moved away leaves its bytecode behind in a clone that is kept.
    top = [path.name for path in CODE.iterdir() if path.is_file() or any(path.rglob("*.py"))]
    assert len(top) <= 24, sorted(top)


def test_only_what_begins_a_program_has_the_app() -> None:
    imports = re.compile(r"from vmrunner\.runtime(\.app import| import .*\bapp\b)")
    found = {
        str(path.relative_to(CODE))
        for path in CODE.rglob("*.py")
        if imports.search(path.read_text())
    }
    assert found == {"api/runner.py", "cli/completion.py", "cli/context.py"}
