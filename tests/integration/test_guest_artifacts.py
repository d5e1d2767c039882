"""What the supervisor's own program packs and unpacks, without a VM."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from tests.support.guest import Guest


def test_unpack_replaces_and_collect_brings(guest: Guest) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in ("a/x", "a/.hidden", "b"):
            info = tarfile.TarInfo(name)
            info.size = 1
            tar.addfile(info, io.BytesIO(b"1"))
    guest.work.mkdir()
    (guest.work / "old").touch()
    assert guest.call("unpack", stdin=buffer.getvalue()).returncode == 0
    assert sorted(path.name for path in guest.work.iterdir()) == ["a", "b"]

    globs = ["a/*", "none/*", "**/b", "/etc/passwd", "../*", "-b"]
    done = guest.call("collect", stdin=json.dumps(globs).encode())
    line, _, data = done.stdout.partition(b"\n")
    assert json.loads(line) == [2, 0, 1, 0, 0, 0]
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert sorted(tar.getnames()) == ["./a/.hidden", "./a/x", "./b"]


def collected(guest: Guest, *globs: str) -> tuple[list[int], list[str]]:
    """What each glob matched, and the names in the archive, in no order."""
    done = guest.call("collect", stdin=json.dumps(globs).encode())
    assert done.returncode == 0, done.stderr
    line, _, data = done.stdout.partition(b"\n")
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return json.loads(line), sorted(tar.getnames())


@pytest.mark.parametrize(
    "globs", [["dist/**"], ["dist"], ["dist/"], ["dist/**", "dist", "**/x", "dist/a/b/*"]]
)
def test_collect_packs_each_file_once(guest: Guest, globs: list[str]) -> None:
    (guest.work / "dist/a/b").mkdir(parents=True)
    for name in ("dist/x", "dist/a/x", "dist/a/b/x"):
        (guest.work / name).touch()
    _, names = collected(guest, *globs)
    assert names == [
        "./dist",
        "./dist/a",
        "./dist/a/b",
        "./dist/a/b/x",
        "./dist/a/x",
        "./dist/x",
    ]


def test_collect_follows_no_link_out_of_the_work_directory(guest: Guest) -> None:
    """What is there is the VM's, and its owner root."""
    secret = guest.work.parent / "outside/secret"
    secret.parent.mkdir()
    secret.write_text("of the VM")
    (guest.work / "a/b").mkdir(parents=True)
    (guest.work / "a/mine").touch()
    (guest.work / "a/out").symlink_to(secret.parent)
    (guest.work / "up").symlink_to("../outside")
    (guest.work / "far").symlink_to("a/b/../../up")
    for glob in ("a/out/*", "a/out/secret", "up/**", "far/secret", "a/../up/secret", "up/../*"):
        done = guest.call("collect", stdin=json.dumps([glob]).encode())
        assert b"of the VM" not in done.stdout
        if ".." not in glob:
            assert done.returncode == 2
            name = glob.rpartition("/")[0]
            assert f"{name}: this link leads out of the work directory" in done.stderr.decode()
    counts, names = collected(guest, "a/*/secret", "**/secret", "a/*")
    assert counts == [0, 0, 3]  # what `*` meets on its way stops nothing
    assert names == ["./a/b", "./a/mine", "./a/out"]  # the link itself is the build's


def test_collect_walks_through_no_link_but_those_that_are_named(guest: Guest) -> None:
    (guest.work / "real").mkdir(parents=True)
    (guest.work / "real" / "x").touch()
    (guest.work / "real" / "here").symlink_to(".")
    (guest.work / "real" / "there").symlink_to(".")
    (guest.work / "latest").symlink_to("real")
    assert collected(guest, "**/x") == ([1], ["./real/x"])
    assert collected(guest, "latest/x", "latest") == ([1, 1], ["./latest/x"])
    assert collected(guest, "latest") == ([1], ["./latest"])
    below = ["./latest/here", "./latest/there", "./latest/x"]  # the link would be in their way
    assert collected(guest, "latest/**", "latest") == ([4, 1], below)
    assert collected(guest, "*/x") == ([2], ["./latest/x", "./real/x"])
    assert collected(guest, "*/nothing", "none/**") == ([0, 0], [])


@pytest.mark.parametrize(("limit", "word"), [("SECONDS = -1.0", "took"), ("NAMES = 2", "over 2")])
def test_a_collect_that_finds_too_much_says_so(guest: Guest, limit: str, word: str) -> None:
    guest.work.mkdir()
    for name in "abc":
        (guest.work / name).touch()
    guest.set(f"artifact_globs.{limit}")
    done = guest.call("collect", stdin=b'["*"]')
    assert (done.returncode, done.stdout) == (2, b"")
    assert word in done.stderr.decode()
    assert "narrow the globs" in done.stderr.decode()
