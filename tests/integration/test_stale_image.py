"""An image that another version of vmrunner made: `run` makes this version's first, once nothing
can be wrong with the build any more; and nobody uses the old one unasked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

import vmrunner
from tests.integration.test_bad_input import assert_nothing, image
from tests.support.command_line import isolated
from tests.support.scripted_app import CountedEngines
from vmrunner import images
from vmrunner.cli import main
from vmrunner.config.sources import LoadedSettings, load
from vmrunner.images import LocalImage, Progress, Recipe
from vmrunner.lib import local_images
from vmrunner.model import Level, Spec
from vmrunner.runtime.app import App

CMD = ("--network", "none", "--", "true")


class Alone(App):
    """No engine is started: what is submitted stays queued."""

    background_engines: ClassVar = CountedEngines


class Builder:
    """In the place of `images.build`: notes what it was asked for, and what it saw then."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.built: list[str] = []
        self.sources: list[int] = []
        self.error: BaseException | None = None

    def __call__(
        self, recipe: Recipe, *, cache: Path, progress: Callable[[Progress], None]
    ) -> LocalImage:
        self.built.append(recipe.name)
        self.sources.append(len(list((self.root / "data").rglob("sources/*.tar"))))
        if self.error is not None:
            raise self.error
        progress(Progress(stage="root", fraction=0.0, seconds=0.0))
        progress(Progress(stage="root", fraction=1.0, seconds=61.0))
        return local_images.read(image(cache, identity=images.current()))


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    """A home whose only image is an old one."""
    isolated(tmp_path, monkeypatch)
    builder = Builder(tmp_path)
    monkeypatch.setattr("vmrunner.images.build", builder)
    (tmp_path / "source").mkdir()
    image(tmp_path / "cache/vmrunner")
    return builder


@pytest.fixture
def run(builder: Builder, capfdbinary: pytest.CaptureFixture[bytes]) -> Any:
    def run(*argv: str) -> tuple[int, str, str]:
        code = main(["run", "-d", *argv], join=join)
        out, err = capfdbinary.readouterr()
        return code, out.decode().strip(), err.decode()

    return run


def join(loaded: LoadedSettings) -> App:
    return Alone(loaded.settings)


def queued(root: Path) -> list[str]:
    parts = App(load(environ={}, start=root).settings)
    try:
        return [build.id for build in parts.ledger.builds.list()]
    finally:
        parts.close()


def test_it_is_made_anew_before_the_build_is_queued(run: Any, builder: Builder) -> None:
    code, build, err = run("--source", "source", *CMD)
    assert code == 0, err
    assert builder.built == ["default"]
    assert builder.sources == [1], "the source was not packed before"
    assert queued(builder.root) == [build]
    assert err.splitlines() == [
        "vmrunner: image: the local image 'default' is of another version of vmrunner: "
        "it is made now",
        "vmrunner: image: root …",
        "vmrunner: image: root took 1m01s",
        "vmrunner: source: 0 files, 0 B",
    ]
    code, _, err = run(*CMD)
    assert (code, err, builder.built) == (0, "", ["default"])


def test_the_first_run_makes_it(run: Any, builder: Builder) -> None:
    shutil.rmtree(builder.root / "cache/vmrunner/images")
    code, _, err = run(*CMD)
    assert (code, builder.built) == (0, ["default"])
    assert "there is no local image yet: it is made now" in err


def test_by_name_in_the_configuration_it_is_the_same_image(run: Any, builder: Builder) -> None:
    text = "[providers.local]\nkind = 'qemu'\nimage = 'default'\n"
    (builder.root / "vmrunner.toml").write_text(text)
    assert run(*CMD)[0] == 0
    assert builder.built == ["default"]


def test_the_newest_image_of_another_version_is_not_used(run: Any, builder: Builder) -> None:
    """Two versions that take turns on one cache each boot their own."""
    cache = builder.root / "cache/vmrunner"
    older = image(cache, identity=images.current())
    manifest = json.loads((older / "image.json").read_text()) | {"created": 1.0}
    (older / "image.json").write_text(json.dumps(manifest))
    assert run(*CMD)[0] == 0
    assert builder.built == []
    assert images.resolve(cache, None, images.current).hash == images.current()


def test_a_dry_run_makes_nothing(run: Any, builder: Builder) -> None:
    code, out, err = run("--dry-run", *CMD)
    assert (code, err, builder.built) == (0, "", [])
    assert "debian:trixie" in out
    assert_nothing(builder.root)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--source", "bad"), "leads outside"),
        (("--source", "git+file:///nope@main"), "cannot be fetched"),
        (("--disk", "1GiB"), "disk = 1024 MiB: image default needs 8192 MiB"),
        (("--container", "alpine"), "'alpine' is not in VM image 'default'"),
        (("--spot",), "no spot market"),
    ],
)
def test_bad_input_makes_nothing(
    run: Any, builder: Builder, argv: tuple[str, ...], message: str
) -> None:
    (builder.root / "bad").mkdir()
    (builder.root / "bad/out").symlink_to("/etc/passwd")
    code, out, err = run(*argv, *CMD)
    assert (code, out, builder.built) == (125, "", [])
    assert message in err
    assert err.count("\n") == 1
    assert_nothing(builder.root)


def test_a_build_that_is_there_already_waits_for_no_image(run: Any, builder: Builder) -> None:
    key = ("--idempotency-key", "k")
    _, build, _ = run(*key, *CMD)
    shutil.rmtree(builder.root / "cache/vmrunner/images")
    assert run(*key, *CMD)[:2] == (0, build)
    assert run(*key, "--timeout", "1m", *CMD)[0] == 125
    assert builder.built == ["default"]


def test_breaking_it_off_leaves_nothing(run: Any, builder: Builder) -> None:
    builder.error = KeyboardInterrupt()
    code, out, _ = run("--source", "source", *CMD)
    assert (code, out, builder.sources) == (130, "", [1])
    assert_nothing(builder.root)


def test_only_another_ones_image_is_bootstrapped(run: Any, builder: Builder) -> None:
    cache = builder.root / "cache/vmrunner"
    ours = image(cache, "ours", "feed0123456789abcdef")
    manifest = json.loads((ours / "image.json").read_text()) | {"supervisor": {"supervisor": "x"}}
    (ours / "image.json").write_text(json.dumps(manifest))
    image(cache, "plain", "beef0123456789abcdef")
    word = ("--bootstrap", "--network", "open")
    for image_args in ((), ("--image", "ours")):
        code, _, err = run(*image_args, *word, "--", "true")
        assert code == 125
        assert "bootstrap: " in err
        assert "needs none (leave it out)" in err
    code, build, err = run("--image", "plain", *word, "--", "true")
    assert (code, err) == (0, "")
    assert queued(builder.root) == [build]


def test_a_named_old_image_is_used_with_a_warning(run: Any, builder: Builder) -> None:
    image(builder.root / "cache/vmrunner", "python", "feed0123456789abcdef")
    for name, fix in (("python", "build RECIPE.toml"), ("0123456789", "vmrunner image build")):
        code, _, err = run("--image", name, *CMD)
        assert (code, builder.built) == (0, [])
        assert err.startswith("vmrunner: warning: image: ")
        assert "is of another version of vmrunner" in err
        assert fix in err


def test_no_engine_uses_it_and_the_doctor_says_so(builder: Builder) -> None:
    parts = App(load(environ={}, start=builder.root).settings)
    try:
        provider = parts.providers.get("local")
        with pytest.raises(local_images.NotMade, match="another version") as refused:
            provider.offers(Spec())
        assert "vmrunner image build" in refused.value.hint
        (found,) = [f for f in provider.check() if f.check == "image"]
        assert found.level is Level.ERROR
        assert "vmrunner image build" in found.fix
    finally:
        parts.close()


def test_the_python_api_makes_it_too(builder: Builder) -> None:
    with vmrunner.Runner(app=Alone(load(environ={}, start=builder.root).settings)) as runner:
        runner.enter(vmrunner.api.runner.build_request("true", {"network": "none"}))
    assert builder.built == ["default"]
