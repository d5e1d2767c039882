"""The certificate of the API server, and the authority that signed it. Clients send tokens over TLS
alone (client-go tools/clientcmd/client_config.go, `IsConfigTransportTLS`)."""

from __future__ import annotations

import datetime
import ipaddress
import socket
import ssl
import tempfile
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vmrunner_localclouds.common.http_server import LoopbackServer
from vmrunner_localclouds.common.service import HOST

_DAY: Final = datetime.timedelta(days=1)
_YEARS: Final = datetime.timedelta(days=3650)


class Certificate:
    """A server's certificate by an authority of its own: `authority` is its PEM, `context` serves
    with it."""

    def __init__(self) -> None:
        key, server_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
        name = _name("localkube-ca")
        authority = _builder(name, name, key.public_key())
        constraint = x509.BasicConstraints(ca=True, path_length=0)
        usage = _usage(signs=True)
        signed = (
            authority.add_extension(constraint, critical=True)
            .add_extension(usage, critical=True)
            .sign(key, hashes.SHA256())
        )
        names = x509.SubjectAlternativeName(
            [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address(HOST))]
        )
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
        server = (
            _builder(_name("kube-apiserver"), name, server_key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs=False), critical=True)
            .add_extension(issuer, critical=False)
            .add_extension(names, critical=False)
            .sign(key, hashes.SHA256())
        )
        self.authority = signed.public_bytes(serialization.Encoding.PEM)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as place:
            chain, private = Path(place) / "chain", Path(place) / "key"
            chain.write_bytes(server.public_bytes(serialization.Encoding.PEM))
            private.write_bytes(
                server_key.private_bytes(
                    serialization.Encoding.PEM,
                    serialization.PrivateFormat.PKCS8,
                    serialization.NoEncryption(),
                )
            )
            self.context.load_cert_chain(chain, private)


class TlsServer(LoopbackServer):
    """Serves with the certificate that `certificate` is at the time of each connection."""

    certificate: Certificate

    def get_request(self) -> tuple[socket.socket, object]:
        plain, address = super().get_request()
        # The handshake is made by the connection's own thread, at its first read.
        secure = self.certificate.context.wrap_socket(
            plain, server_side=True, do_handshake_on_connect=False
        )
        return secure, address


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    own = x509.SubjectKeyIdentifier.from_public_key(key)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + _YEARS)
        .add_extension(own, critical=False)
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
