"""What the builder is made of: programs bounded in time, names in tars, the script for the VM."""

from __future__ import annotations

import io
import subprocess
import tarfile
import threading
import time
from pathlib import Path
from typing import IO

import pytest

from vmrunner.errors import ConfigError, ImageError
from vmrunner.images.local import pax_names, rootfs
from vmrunner.images.local import programs as tools
from vmrunner.images.local.programs import ChildPrograms, joined
from vmrunner.images.recipe import Container, Inputs


def test_output_comes_line_by_line_and_back() -> None:
    lines: list[str] = []
    text = ChildPrograms().run(
        ["sh", "-c", "echo one; echo two >&2; printf three"],
        what="x",
        timeout=20,
        line=lines.append,
    )
    assert lines == ["one", "two"]
    assert text == "one\ntwo\nthree"


def test_a_failure_shows_the_last_lines() -> None:
    with pytest.raises(ImageError, match=r"making it: sh failed with 3\n(.*\n)*99$") as caught:
        ChildPrograms().run(["sh", "-c", "seq 99; exit 3"], what="making it", timeout=20)
    assert str(caught.value).count("\n") == 20


def test_an_endless_program_is_ended_with_its_children() -> None:
    programs, began = ChildPrograms(), time.monotonic()
    with pytest.raises(ImageError, match="not done after 1 s"):
        programs.run(["sh", "-c", "sleep 50 & sleep 50"], what="x", timeout=1)
    assert time.monotonic() - began < 15
    assert not programs.running


def test_stop_ends_what_runs_elsewhere_and_starts_no_more() -> None:
    programs, errors = ChildPrograms(), []

    def work() -> None:
        try:
            programs.run(["sleep", "50"], what="x", timeout=60)
        except ImageError as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    while not programs.running:
        thread.join(0.01)
    programs.stop()
    thread.join(15)
    assert len(errors) == 1
    with pytest.raises(ImageError, match="stopped"):
        programs.run(["true"], what="x", timeout=1)


def test_a_missing_program_is_named_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tools, "which", lambda program: None)
    with pytest.raises(ConfigError, match="mmdebstrap, skopeo: not installed") as caught:
        tools.require("mmdebstrap", "skopeo")
    assert caught.value.hint == "apt-get install mmdebstrap skopeo"


def copied(tar: Path) -> bytes:
    to = tar.with_suffix(".copy")
    with to.open("wb") as file:
        pax_names.copy(tar, file)
        file.write(b"\0" * 1024)
    return to.read_bytes()


def test_names_above_ascii_are_marked_and_nothing_else_changes(tmp_path: Path) -> None:
    files = {"a": b"1", "ő/ü": b"2" * 1000, "b" * 150: b"3", "é" * 90: b"4" * 512}
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(fileobj=io.BytesIO(copied(path)), encoding="utf-8") as tar:
        members = tar.getmembers()
        contents = {member.name: tar.extractfile(member) for member in members}
        assert {name: file and file.read() for name, file in contents.items()} == files
    assert [m.pax_headers.get("hdrcharset") for m in members] == [None, "BINARY", None, "BINARY"]


def test_an_ascii_tar_is_copied_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    assert copied(path) == path.read_bytes()[:512] + b"\0" * 1024


def test_a_program_reads_what_it_is_given() -> None:
    programs = ChildPrograms()

    def read(file: IO[bytes]) -> str:
        return programs.run(["wc", "-c"], what="x", timeout=60, stdin=file)

    assert joined(lambda file: file.write(b"x" * 100_000), read) == "100000"


@pytest.mark.parametrize("program", ["false", "cat >/dev/null; false"])
def test_of_two_ends_what_failed_first_is_told(program: str) -> None:
    programs = ChildPrograms()

    def fail(file: IO[bytes]) -> str:
        return programs.run(["sh", "-c", program], what="reading", timeout=60, stdin=file)

    with pytest.raises(ImageError, match="reading: sh failed with 1"):
        joined(lambda file: file.write(b"x" * 1_000_000), fail)

    def refuse(file: IO[bytes]) -> str:
        raise ImageError("refused")

    def endless(file: IO[bytes]) -> str:
        return programs.run(["yes"], what="writing", timeout=60, stdout=file)

    with pytest.raises(ImageError, match="refused"):
        joined(endless, refuse)


@pytest.mark.parametrize("name", sorted(Inputs.read().scripts))
def test_provisioning_scripts_parse_and_stop_at_errors(name: str) -> None:
    script = Inputs.read().scripts[name]
    subprocess.run(["sh", "-n"], input=script, check=True)
    assert b"\nset -eu\n" in script


def test_cleaning_spares_the_file_that_keeps_mmdebstrap_off_the_host() -> None:
    clean = Inputs.read().scripts["90-clean.sh"].decode()
    lines = [line for line in clean.splitlines() if "/tmp" in line and not line.startswith("#")]
    assert lines
    assert all("-not -name 'mmdebstrap.*'" in line for line in lines)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        ("reading manifest 1 in r/x: manifest unknown", "no such image"),
        ("requested access to the resource is denied", "skopeo login"),
        ("http: server gave HTTP response to HTTPS client", "insecure = true"),
        ("dial tcp 127.0.0.1:1: connect: connection refused", "cannot be reached"),
    ],
)
def test_a_registrys_refusal_is_said_in_terms_of_the_recipe(output: str, words: str) -> None:
    error = rootfs.pull_error(Container(name="x", pull="r/x:1"), output)
    assert isinstance(error, ConfigError)
    assert "containers: pull: 'r/x:1'" in str(error)
    assert words in str(error)


def test_scratch_of_somebody_else_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = rootfs.scratch(tmp_path)
    try:
        assert place.stat().st_mode & 0o7777 == 0o1777
        assert rootfs.scratch(tmp_path) == place
    finally:
        place.rmdir()
    place.symlink_to(tmp_path)
    try:
        with pytest.raises(ConfigError, match="belongs to another user"):
            rootfs.scratch(tmp_path)
    finally:
        place.unlink()


@pytest.mark.parametrize(
    ("script", "same"),
    [("echo a >x", True), ("echo a >>x", False), ("mkdir x.$(date +%N)", False)],
)
def test_a_script_with_two_different_results_stops_the_build(
    tmp_path: Path, script: str, *, same: bool
) -> None:
    place = tmp_path / "etc"
    place.mkdir()
    watched, text = "/etc /root /boot /usr/lib/systemd", Inputs.read().unchanged.decode()
    assert watched in text
    (tmp_path / "unchanged").write_text(text.replace(watched, str(place)))
    done = subprocess.run(
        ["sh", "-euc", f"{script}; sh ../unchanged; {script}; sh ../unchanged"],
        cwd=place,
        env=tools.environment(VMRUNNER_WORK=str(tmp_path)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) is same, done.stderr
    assert ("unchanged" if same else "+") in done.stdout
