"""Somebody else's HTTP server on this machine, with or without TLS, that does as it is told."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Receiver:
    """Keeps what it is sent. `answer` may write anything in place of the usual answer."""

    status: int = 204
    location: str = ""
    answer: Callable[[Any], None] | None = None
    got: list[tuple[str, dict[str, str], str]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook"


@contextmanager
def receiver(*, tls: tuple[str, Path] | None = None) -> Iterator[Receiver]:
    """`tls` names the host of the certificate, and a file that gets it with its key."""
    told = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            headers = {name.lower(): value for name, value in self.headers.items()}
            told.got.append((self.path, headers, body))
            if told.answer is not None:
                told.answer(self.wfile)
                return
            self.send_response(told.status)
            if told.location:
                self.send_header("Location", told.location)
            self.end_headers()

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that hangs up

    server = Server(("127.0.0.1", 0), Handler)
    if tls is not None:
        _certify(*tls)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls[1])
        server.socket = context.wrap_socket(server.socket, server_side=True)
    told.port = server.server_address[1]
    running = threading.Thread(target=server.serve_forever, daemon=True)
    running.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        running.join(10)


def _certify(host: str, place: Path) -> None:
    """Write a certificate for the name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    place.write_bytes(certificate.public_bytes(pem) + private)


def answering(*addresses: str, log: list[str] | None = None) -> Any:
    """A resolver that answers with these addresses, and with the next one each time it is asked."""
    asked: list[str] = [] if log is None else log

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        asked.append(host)
        now = addresses[min(len(asked), len(addresses)) - 1]
        return [(None, None, None, "", (one, port)) for one in now.split()]

    return resolve
