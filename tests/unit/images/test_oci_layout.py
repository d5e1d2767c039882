"""An image as an OCI layout: each file is what its name says, and what is left out is not there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import sys
import tarfile
from pathlib import Path

from tests.support.loopback_registry import packed
from vmrunner.images import oci_layout, unit_image
from vmrunner.lib import unit_recipe


def written(directory: Path) -> tuple[Path, str]:
    root = directory / "root.tar"
    root.write_bytes(packed({"./etc/ssh/ssh_host_key": b"private", "./bin/true": b"#!"}))
    digest = oci_layout.write(
        directory / "image",
        root,
        {"usr/lib/program": b"#!/bin/sh\n", "usr/lib/text": b"text"},
        directories={"work": 0o755},
        left_out=lambda name: name.startswith("etc/ssh/ssh_host_"),
        labels={unit_recipe.LABEL: "abc"},
        architecture="amd64",
    )
    return directory / "image", digest


def test_each_file_of_a_layout_is_named_by_its_bytes(tmp_path: Path) -> None:
    image, digest = written(tmp_path)
    for blob in (image / "blobs/sha256").iterdir():
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.name
    assert oci_layout.digest(image) == digest
    manifest = json.loads((image / "blobs/sha256" / digest.partition(":")[2]).read_text())
    config = image / "blobs/sha256" / manifest["config"]["digest"].partition(":")[2]
    assert json.loads(config.read_text())["config"]["Labels"] == {unit_recipe.LABEL: "abc"}


def test_one_layer_has_the_root_and_our_files(tmp_path: Path) -> None:
    image, _ = written(tmp_path)
    with tarfile.open(oci_layout.layer(image)) as layer:
        modes = {member.name: member.mode for member in layer}
    assert "./etc/ssh/ssh_host_key" not in modes
    assert modes["usr/lib/program"] == 0o755
    assert modes["usr/lib/text"] == 0o644
    assert {"./bin/true", "usr", "usr/lib", "work"} <= modes.keys()


def test_the_same_files_make_the_same_image(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert written(tmp_path / "a")[1] == written(tmp_path / "b")[1]


def test_a_unit_image_has_our_programs_and_no_vms(tmp_path: Path) -> None:
    files = unit_recipe.files()
    for name in ("supervisor", "sshd"):
        assert files[f"{unit_recipe.LIBRARY}/{name}"].startswith(b"#!")
    assert f"{unit_recipe.LIBRARY}/guest/unit.py" in files
    assert f"{unit_recipe.LIBRARY}/guest/launcher.py" not in files
    assert len(unit_recipe.current()) == 20


def test_byte_code_of_a_unit_is_that_of_its_files(tmp_path: Path) -> None:
    """It is taken without a look at the source, so it must be of that."""
    code = unit_recipe.byte_code()
    files = unit_recipe.files()
    modules = {name for name in files if name.endswith(".py")}
    for name in modules:
        cached = importlib.util.cache_from_source(name)
        data = code[cached]
        assert data[:4] == importlib.util.MAGIC_NUMBER
        assert data[4:8] == b"\x01\0\0\0"  # by hash, and that is not checked
        assert data[8:16] == importlib.util.source_hash(files[name])
        assert marshal.loads(data[16:]).co_filename == f"/{name}"
    assert len(code) == len(modules)


def test_byte_code_goes_into_an_image_of_the_same_python(tmp_path: Path) -> None:
    for tag, fits in ((sys.implementation.cache_tag, True), ("cpython-39", False)):
        root = tmp_path / f"{tag}.tar"
        root.write_bytes(packed({f"./usr/lib/python3/__pycache__/os.{tag}.pyc": b""}))
        assert unit_image._has_our_python(root) is fits
