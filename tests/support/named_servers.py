"""Servers of names, over TLS and plain HTTP, that tell whom they were asked for and where."""

from __future__ import annotations

import contextlib
import datetime
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def certificate(path: Path) -> Path:
    """Write a key and a certificate that nobody checks."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


def serve(pem: Path, token: str) -> None:
    """Serve at every address of this network namespace."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    def over_tls(sock: socket.socket) -> None:
        names: list[str] = []
        context.sni_callback = lambda _, name, __: names.append(name or "")
        with context.wrap_socket(sock, server_side=True) as secured:
            secured.recv(1)
            secured.sendall(f"{token} {sock_name(secured)} {names[-1]}".encode())

    def in_the_clear(sock: socket.socket) -> None:
        head = sock.recv(8192).decode(errors="replace")
        host = next((line for line in head.splitlines() if line.lower().startswith("host")), "")
        body = f"{token} {sock_name(sock)} {host} {head.count('HTTP/1.1')}"
        answer = (
            f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
        )
        sock.sendall(answer.encode())

    for port, attend in ((443, over_tls), (8443, over_tls), (80, in_the_clear)):
        server = socket.create_server(("", port))
        threading.Thread(target=_accept, args=(server, attend), daemon=True).start()


def sock_name(sock: socket.socket) -> str:
    return str(sock.getsockname()[0])


def _accept(server: socket.socket, attend: Callable[[socket.socket], None]) -> None:
    while True:
        sock, _ = server.accept()
        sock.settimeout(20)
        with sock, contextlib.suppress(OSError):
            attend(sock)
