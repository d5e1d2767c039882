"""Stores for tests: a directory, moto's S3, and nanio, an S3 server that checks signatures."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3
import pytest
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from vmrunner.store import ObjectStore, open_store

KEY, SECRET = "test-key", "test-secret-key"
BUCKET = "builds"


@contextmanager
def moto() -> Iterator[str]:
    """An endpoint of moto's. What an earlier one of this process kept is forgotten, of S3 alone."""
    for account in s3_backends.values():
        for backend in account.values():
            backend.reset()
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def nanio(directory: Path) -> Iterator[str]:
    """An endpoint of a server that nobody here wrote, and that verifies each signature."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    argv = [
        sys.executable, "-m", "nanio", "serve", "--host", "127.0.0.1", "--port", str(port),
        "--data-dir", str(directory), "--no-access-log",
    ]  # fmt: skip
    environ = {**os.environ, "NANIO_ACCESS_KEY": KEY, "NANIO_SECRET_KEY": SECRET}
    process = subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if "running on" in line:
                break
        else:
            raise AssertionError("nanio did not start")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.communicate()


@pytest.fixture(params=["file", "moto", "nanio"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ObjectStore]:
    """An empty store."""
    if request.param == "file":
        yield open_store(f"file://{tmp_path}/a%20store")
        return
    with bucket(request.param, tmp_path, monkeypatch) as endpoint:
        yield open_store(f"s3://{BUCKET}/pre/fix", endpoint=endpoint, region="us-east-1")


@contextmanager
def bucket(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An endpoint that has an empty bucket, and credentials for it in the environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    with moto() if kind == "moto" else nanio(tmp_path / "nanio") as endpoint:
        # Told, not left to the environment: boto3 keeps what an earlier test had there.
        client = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )  # fmt: skip
        client.create_bucket(Bucket=BUCKET)
        client.close()
        yield endpoint
