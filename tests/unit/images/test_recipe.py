"""Recipes: what is refused and how, and which hash covers what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vmrunner import images
from vmrunner.cli.views import images as imageviews
from vmrunner.errors import ConfigError
from vmrunner.images import LocalImage
from vmrunner.images import recipe as recipes
from vmrunner.images.cloud import stage
from vmrunner.images.recipe import Docker, Inputs, Recipe, parse

MADE = {"name": "debian:trixie", "packages": ["git"]}
PULLED = {"pull": "docker.io/library/python:3.13-slim"}

INPUTS = Inputs(
    base_packages=("docker.io",),
    scripts={"10-a.sh": b"a", "90-clean.sh": b"c"},
    unchanged=b"u",
    supervisor={"supervisor": b"s", "guest/supervisor.py": b"g"},
)


def recipe(**fields: Any) -> Recipe:
    return parse({"name": "small", "containers": [MADE, PULLED], **fields})


def test_a_recipe_that_ships_needs_no_registry() -> None:
    default = recipes.find("default")
    assert [c.name for c in default.containers] == ["debian:trixie"]
    assert all(c.pull is None for c in default.containers)


def test_defaults() -> None:
    made, pulled = recipe().containers
    assert made.suite == "trixie"
    assert made.command == ("bash",)
    assert made.env["PATH"].startswith("/usr/local/sbin:")
    assert pulled.name == pulled.pull == "docker.io/library/python:3.13-slim"
    assert not pulled.insecure
    assert recipe().disk == 8 << 30
    assert recipe().docker == Docker(registry_mirror=None, address_pool="172.18.0.0/16")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"nmae": "x"}, ("nmae", "did you mean 'name'?")),
        ({"name": "No Spaces"}, ("name", "'No Spaces'")),
        ({"name": None}, ("name", "missing")),
        ({"suite": 13}, ("suite", "13")),
        ({"packages": ["git; rm -rf /"]}, ("packages", "names of Debian packages")),
        ({"packages": "git"}, ("packages", "list of strings")),
        ({"disk": "8GB"}, ("disk", "'8GB'")),
        ({"disk": "1GiB"}, ("disk", "from '2GiB'")),
        ({"docker": "rootless"}, ("docker", "'rootless'")),
        ({"docker": {"registry_miror": "x"}}, ("mirror", "did you mean 'registry_mirror'?")),
        ({"docker": {"registry_mirror": "mirror"}}, ("registry_mirror", "'mirror'", "URL")),
        ({"docker": {"address_pool": "10.0.0.1/8"}}, ("address_pool", "'10.0.0.1/8'", "host bits")),
        ({"docker": {"address_pool": "8.8.0.0/16"}}, ("address_pool", "private")),
        ({"docker": {"address_pool": "169.254.169.0/24"}}, ("address_pool", "private")),
        ({"docker": {"address_pool": "10.0.0.0/25"}}, ("address_pool", "/24")),
        ({"docker": {"userns": "yes"}}, ("userns", "'yes'")),
        ({"docker": {"userns": True}, "packages": ["runsc"]}, ("docker: userns", "True")),
        ({"containers": []}, ("containers", "between 1 and 16")),
        ({"containers": ["debian"]}, ("containers", "[[containers]]")),
        ({"containers": [MADE, MADE]}, ("containers", "a different `name`")),
        ({"containers": [{**MADE, "insecure": True}]}, ("containers[0]", "insecure")),
        ({"containers": [{**PULLED, "insecure": "yes"}]}, ("insecure", "'yes'")),
        ({"containers": [{"pull": "--help"}]}, ("pull", "'--help'")),
        ({"containers": [{"pull": "a/b@sha256:00"}]}, ("name", "by digest")),
        ({"containers": [{**PULLED, "suite": "sid"}]}, ("containers[0]", "suite", "pulled")),
        ({"containers": [{**MADE, "pakages": []}]}, ("containers[0].pakages", "'packages'")),
        ({"containers": [{**MADE, "env": {"A B": "x"}}]}, ("env", "names and strings")),
        ({"containers": [{**MADE, "command": []}, {**MADE, "command": [1]}]}, ("command",)),
    ],
)
def test_a_mistake_names_field_value_and_fix(
    fields: dict[str, Any], words: tuple[str, ...]
) -> None:
    raw = {"name": "small", "containers": [MADE], **fields}
    with pytest.raises(ConfigError) as caught:
        parse({k: v for k, v in raw.items() if v is not None})
    assert "\n" not in str(caught.value)
    assert caught.value.hint
    for word in words:
        assert word in str(caught.value)


def test_unknown_recipes_and_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'nosuch' is not known .*default"):
        recipes.find("nosuch")
    with pytest.raises(ConfigError, match="does not exist"):
        recipes.find(str(tmp_path / "x.toml"))
    broken = tmp_path / "broken.toml"
    broken.write_text("name = ")
    with pytest.raises(ConfigError, match="broken"):
        recipes.find(str(broken))


def test_a_tag_is_latest_unless_it_says_more() -> None:
    image = recipe(containers=[{"pull": "127.0.0.1:5000/a", "insecure": True}]).containers[0]
    assert image.name == image.pull == "127.0.0.1:5000/a:latest"


def hashes(recipe: Recipe, inputs: Inputs) -> dict[str, str]:
    made, pulled = (
        recipes.container_hash(container, userns=recipe.docker.userns)
        for container in recipe.containers
    )
    return {
        "root": recipes.root_hash(recipe, inputs),
        "disk": recipes.disk_hash(recipe, inputs),
        "image": recipes.image_hash(recipe, inputs),
        "made": made,
        "pulled": pulled,
    }


@pytest.mark.parametrize(
    ("other", "inputs", "changed"),
    [
        (recipe(name="other"), {}, {"image"}),
        (recipe(suite="forky"), {}, {"root", "disk", "image"}),
        (recipe(packages=["htop"]), {}, {"root", "disk", "image"}),
        (
            recipe(docker={"userns": True}),
            {},
            {"root", "made", "pulled", "disk", "image"},
        ),
        (recipe(docker={"registry_mirror": "http://m"}), {}, {"root", "disk", "image"}),
        (recipe(docker={"address_pool": "10.0.0.0/8"}), {}, {"root", "disk", "image"}),
        (recipe(disk="9GiB"), {}, {"disk", "image"}),
        (recipe(containers=[{**MADE, "env": {"A": "b"}}, PULLED]), {}, {"disk", "image"}),
        (recipe(containers=[{**MADE, "command": ["sh"]}, PULLED]), {}, {"disk", "image"}),
        (recipe(containers=[{**MADE, "name": "a:b"}, PULLED]), {}, {"disk", "image"}),
        (recipe(containers=[{**MADE, "suite": "sid"}, PULLED]), {}, {"made", "disk", "image"}),
        (recipe(containers=[{**MADE, "packages": []}, PULLED]), {}, {"made", "disk", "image"}),
        (recipe(containers=[MADE, {"pull": "a/b:1"}]), {}, {"pulled", "disk", "image"}),
        (recipe(containers=[MADE, {**PULLED, "insecure": True}]), {}, {"pulled", "disk", "image"}),
        (recipe(), {"base_packages": ("docker.io", "git")}, {"root", "disk", "image"}),
        (recipe(), {"scripts": {"10-a.sh": b"b", "90-clean.sh": b"c"}}, {"root", "disk", "image"}),
        (recipe(), {"scripts": {"11-a.sh": b"a", "90-clean.sh": b"c"}}, {"root", "disk", "image"}),
        (recipe(), {"supervisor": {"supervisor": b"s", "guest/supervisor.py": b"h"}}, {"image"}),
        (recipe(packages=[]), {}, set()),
    ],
)
def test_each_hash_covers_what_its_stage_depends_on(
    other: Recipe, inputs: dict[str, Any], changed: set[str]
) -> None:
    before, after = hashes(recipe(), INPUTS), hashes(other, replace(INPUTS, **inputs))
    assert {name for name in before if before[name] != after[name]} == changed


def test_hashes_are_what_they_were() -> None:
    """Another hash of the same recipe would make every image anew."""
    assert hashes(recipe(), INPUTS) == {
        "root": "47e8f037748683894e51",
        "disk": "1978c0e518dd5a474910",
        "image": "997a87a445de1114d552",
        "made": "c187b0333ae1e4e68a05",
        "pulled": "99599f2cf7637d49f091",
    }


def test_the_builders_version_is_in_every_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    before = hashes(recipe(), INPUTS)
    monkeypatch.setattr(recipes, "VERSION", recipes.VERSION + 1)
    after = hashes(recipe(), INPUTS)
    assert all(before[name] != after[name] for name in before)


def test_a_missing_supervisor_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"supervisor: .* has no launcher\.py"):
        Inputs.read(tmp_path)


def test_this_installation_is_whole() -> None:
    inputs = Inputs.read()
    assert inputs.supervisor["supervisor"].startswith(b"#!")
    assert "guest/supervisor.py" in inputs.supervisor
    assert sorted(inputs.scripts)[0].startswith("05-")
    assert "90-clean.sh" in inputs.scripts
    assert "openssh-server" in inputs.base_packages


def test_a_container_says_what_it_is_made_of() -> None:
    """`debian:trixie` is not Docker Hub's: users found git and compilers there, and no `less`."""
    default, pulled = images.find("default"), parse({"name": "x", "containers": [PULLED]})
    origin = stage.manifest(default, "aaaa", 1.0)["origins"]["debian:trixie"]
    assert origin.startswith("Debian trixie with build-essential, ca-certificates, cmake, curl, ")
    (container,) = pulled.containers
    assert container.origin == f"pulled from {PULLED['pull']}"
    bare = default.containers[0].model_copy(update={"packages": ()})
    assert bare.origin == "Debian trixie with nothing more"


@pytest.mark.parametrize("name", ["default", "gvisor"])
def test_the_default_container_has_what_builds_reach_for(name: str) -> None:
    """C extensions of Python were left out without a word for want of `Python.h`."""
    (container,) = images.find(name).containers
    wanted = {"python3-dev", "build-essential", "git", "curl", "wget", "procps", "iproute2", "file",
              "less", "unzip", "jq", "pkg-config", "cmake"}  # fmt: skip
    assert wanted <= {*container.packages}


def test_image_ls_wide_shows_it() -> None:
    image = LocalImage(
        hash="aaaa",
        name="default",
        directory=Path("/x"),
        cmdline="",
        containers=("a", "b"),
        created=1.0,
        size=1,
        virtual_size=1,
        origins={"a": "Debian trixie with git", "b": "pulled from c"},
    )
    shown = imageviews.of_local(image)
    cells = {column.title: column.text(shown) for column in imageviews.view().columns}
    assert cells["made of"] == "a: Debian trixie with git; b: pulled from c"
    assert imageviews.document(shown)["origins"] == image.origins
