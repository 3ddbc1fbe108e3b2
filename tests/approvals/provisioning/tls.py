"""TLS in front of the target's server, with a certificate made on the spot; not a test."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def self_signed(address: str, *, valid: timedelta = timedelta(days=1)) -> tuple[str, str]:
    """Return certificate and key as PEM, for one IP address."""
    key = ec.generate_private_key(ec.SECP256R1())
    # Of two trusted ones with one name, the first found would have to fit.
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"target for {valid}")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + valid)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return certificate.public_bytes(pem).decode(), private.decode()


class TlsFront:
    """Speaks TLS for a server that cannot (the embedded one is built without it)."""

    def __init__(self, upstream: int, address: str, directory: Path) -> None:
        self.upstream = upstream
        self.certificate, key = self_signed(address)
        pem = directory / "front.pem"
        pem.write_text(self.certificate + key)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(pem)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)

    def serve(self) -> None:
        with contextlib.suppress(OSError):  # the listener was shut: the end of the test
            while True:
                with self.listener.accept()[0] as client:
                    self.pass_on(client)

    def pass_on(self, client: socket.socket) -> None:
        client.recv(8)  # SSLRequest
        client.sendall(b"S")
        with (
            contextlib.suppress(OSError),  # a client that does not trust us hangs up
            self.context.wrap_socket(client, server_side=True) as clear,
            socket.create_connection(("127.0.0.1", self.upstream)) as server,
        ):
            back = threading.Thread(target=copy, args=(server, clear))
            back.start()
            copy(clear, server)
            server.shutdown(socket.SHUT_RDWR)
            back.join()

    def __enter__(self) -> Self:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(10)


def copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
