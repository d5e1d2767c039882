"""The examples in the documentation run, read or parse as they stand."""

from __future__ import annotations

import json
import re
import runpy
import shlex
import tomllib
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import pytest
from typer.main import get_command

import vmrunner.runtime.app
from tests.support.command_line import isolated
from tests.support.job_files import chosen
from tests.support.scripted_app import Scripted, ScriptedApp
from vmrunner import cli
from vmrunner.config import sources, yaml
from vmrunner.images import recipe
from vmrunner.model import Reason, Result
from vmrunner.runtime.background import BackgroundEngines
from vmrunner.session import End

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "packer/README.md"]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    page: str
    line: int
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(*kinds: str) -> list[Any]:
    found = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] in kinds:
                line = text.count("\n", 0, match.start()) + 1
                block = Block(page.name, line, match[1], match[2])
                found.append(pytest.param(block, id=str(block)))
    return found


class Obliging(Scripted):
    """A build that does whatever the documentation says: `exit N` ends so, the rest succeeds."""

    def _line(self, word: str, rest: str) -> End | None:
        code = re.search(r"\bexit (\d+)", f"{word} {rest}")
        self._log(f"{word} {rest}\n".encode())
        for rule in self._job.build.spec.artifacts:
            super()._line("artifact", rule.glob.replace("*", "made") + " text")
        if code is None:
            return None
        return End(result=Result.FAILURE, reason=Reason.EXIT_CODE, exit_code=int(code[1]))


class NoEngines(BackgroundEngines):
    def spawn(self) -> None:
        raise AssertionError("an example left something behind")


class ExampleApp(ScriptedApp):
    def sessions(self) -> type[Scripted]:
        return Obliging

    background_engines: ClassVar = NoEngines


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    isolated(tmp_path, monkeypatch)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


@pytest.mark.parametrize("block", blocks("python"))
def test_python(block: Block, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "vmrunner.toml").write_text("[providers.local]\nkind = 'fake'\n")
    monkeypatch.setattr(vmrunner.runtime.app, "App", ExampleApp)
    monkeypatch.setattr("vmrunner.api.runner.App", ExampleApp)
    source = "\n" * block.line + block.text
    exec(compile(source, block.page, "exec"), {"__name__": "example"})


@pytest.mark.parametrize("program", sorted(ROOT.glob("examples/*.py")), ids=lambda p: p.name)
def test_programs(
    program: Path,
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (place / "vmrunner.toml").write_text("[providers.local]\nkind = 'fake'\n")
    monkeypatch.setattr("vmrunner.api.runner.App", ExampleApp)
    with pytest.raises(SystemExit) as exit_info:
        runpy.run_path(str(program), run_name="__main__")
    assert exit_info.value.code == 0
    assert "success, exit code 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    "file", sorted(ROOT.glob("examples/**/*.yml")), ids=lambda p: str(p.relative_to(ROOT))
)
def test_job_files(file: Path, place: Path) -> None:
    check_jobs(file.read_bytes())


def check_jobs(text: bytes) -> None:
    """Choose each of the file's jobs."""
    table, _ = yaml.parse(text, "here")
    assert all(chosen(text, name).job.steps for name in table["jobs"])


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


@pytest.mark.parametrize("block", blocks("toml"))
def test_toml(block: Block, place: Path) -> None:
    if tomllib.loads(block.text).keys() >= {"name", "containers"}:
        recipe.load(written(place / "recipe.toml", block.text))
        return
    file = written(place / "vmrunner.toml", block.text)
    loaded = sources.load(environ={"VMRUNNER_CONFIG": str(file)}, start=place)
    settings = tomllib.loads(block.text)
    assert set(settings) <= set(type(loaded.settings).model_fields)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml(block: Block, place: Path) -> None:
    check_jobs(block.text.encode())


@pytest.mark.parametrize("block", blocks("json"))
def test_json(block: Block) -> None:
    json.loads(block.text)


@pytest.mark.parametrize("block", blocks("console"))
def test_commands(block: Block) -> None:
    root: Any = get_command(cli.app())
    for line in block.text.splitlines():
        if not line.startswith("$ vmrunner "):
            continue  # what it prints
        words = shlex.split(line.removeprefix("$ "))
        context = root.make_context("vmrunner", words[1:], resilient_parsing=False)
        command, rest = root, words[1:]
        while getattr(command, "commands", None):
            _, command, rest = command.resolve_command(context, rest)
        command.make_context(command.name, list(rest), parent=context)
