"""Where a POST may go whose address somebody else chose: where it says, and nowhere inside."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from approvals.notify import pinned
from approvals.notify.pinned import Refused, Unanswered
from tests.approvals.notify.receiver import answering, receiver

LOCAL = ["127.0.0.0/8"]


def post(url: str, **more: Any) -> int:
    return pinned.post(url, b"{}", {}, **{"within": 3.0, **more})


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",  # decimal
        "0177.0.0.1",  # octal
        "0x7f.0.0.1",
        "0x7f000001",
        "localhost",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "0xa9fea9fe",  # the same
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::ffff:169.254.169.254]",
        "[::127.0.0.1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[fec0::1]",
        "[ff02::1]",
        "[64:ff9b::7f00:1]",  # NAT64
        "[64:ff9b:1::7f00:1]",
        "[2002:7f00:1::1]",  # 6to4
        "[2001:0:7f00:1::1]",  # Teredo
        "[2001:db8::1]",
    ],
)
def test_what_is_not_public_is_refused_however_it_is_written(host: str):
    with pytest.raises(Refused, match="is not a public address"):
        post(f"https://{host}/")


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com@127.0.0.1/",
        "https://user:password@example.com/",
        "https://127.0.0.1\\@example.com/",
        "https://example.com#@127.0.0.1/",
        "file:///etc/passwd",
        "gopher://127.0.0.1:25/_HELO",
        "ftp://example.com/",
        "javascript:alert(1)",
        "//example.com/",
        "example.com",
        "https://",
        "https:///path",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://[::1/",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: 127.0.0.1",
        "https://ⓛocalhost/",
        "https://127。0。0。1/",
        "https://example.com/" + "x" * 500,
        "",
    ],
)
def test_what_is_not_plainly_an_address_is_refused(url: str):
    with pytest.raises(Refused):
        post(url)
    with pytest.raises(Refused):
        pinned.check(url)


def test_plain_http_is_for_listed_networks_only():
    with pytest.raises(Refused, match="https"):
        post("http://example.com/", resolve=answering("93.184.215.14"))


def test_a_name_is_resolved_once_and_that_very_address_is_connected_to(settings: Any):
    """A name that says something else the next time it is asked leads nowhere else."""
    settings.WEBHOOK_NETWORKS = LOCAL
    asked: list[str] = []
    with receiver() as server:
        resolve = answering("127.0.0.1", "169.254.169.254", log=asked)
        assert post(f"http://hooks.example.com:{server.port}/a?b=c", resolve=resolve) == 204
    assert asked == ["hooks.example.com"]
    [(path, headers, _)] = server.got
    assert path == "/a?b=c"
    assert headers["host"] == f"hooks.example.com:{server.port}"


def test_a_name_with_one_address_inside_is_refused_whole(settings: Any):
    with pytest.raises(Refused):
        post("https://hooks.example.com/", resolve=answering("93.184.215.14 127.0.0.1"))


def test_the_first_answer_counts_even_if_a_later_one_would_do(settings: Any):
    with pytest.raises(Refused):
        post("https://hooks.example.com/", resolve=answering("10.0.0.1", "93.184.215.14"))


@pytest.mark.slow
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(settings: Any, status: int):
    settings.WEBHOOK_NETWORKS = LOCAL
    with receiver() as server:
        server.status, server.location = status, "http://169.254.169.254/latest/meta-data/"
        assert post(server.url) == status
    assert len(server.got) == 1


@pytest.mark.slow
def test_no_proxy_of_the_environment_is_used(settings: Any, monkeypatch: Any):
    settings.WEBHOOK_NETWORKS = LOCAL
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with receiver() as server:
        assert post(server.url) == 204


class TestTls:
    @pytest.fixture
    def certificate(self, tmp_path: Path, monkeypatch: Any) -> Path:
        """Trusted by this machine, once a server has written it."""
        place = tmp_path / "server.pem"
        monkeypatch.setenv("SSL_CERT_FILE", str(place))
        return place

    @pytest.mark.slow
    def test_it_is_verified_for_the_name_and_not_for_the_address(
        self, settings: Any, certificate: Path
    ):
        settings.WEBHOOK_NETWORKS = LOCAL
        with receiver(tls=("hooks.example.com", certificate)) as server:
            there = answering("127.0.0.1")
            url = f"https://hooks.example.com:{server.port}/"
            assert post(url, resolve=there) == 204
            with pytest.raises(Unanswered, match=r"(?i)hostname mismatch"):
                post(f"https://other.example.com:{server.port}/", resolve=there)
        assert len(server.got) == 1

    @pytest.mark.slow
    def test_one_that_nobody_vouches_for_is_sent_nothing(self, settings: Any, tmp_path: Path):
        settings.WEBHOOK_NETWORKS = LOCAL
        with receiver(tls=("hooks.example.com", tmp_path / "other.pem")) as server:
            with pytest.raises(Unanswered, match="self-signed"):
                post(f"https://hooks.example.com:{server.port}/", resolve=answering("127.0.0.1"))
        assert server.got == []


class TestItEnds:
    @pytest.fixture(autouse=True)
    def local(self, settings: Any) -> None:
        settings.WEBHOOK_NETWORKS = LOCAL

    @pytest.mark.slow
    @pytest.mark.parametrize("what", [b"H", b"HTTP/1.1 200 OK\r\nX: "])
    def test_one_that_says_a_byte_at_a_time_is_not_waited_for(self, what: bytes):
        def drip(out: Any) -> None:
            out.write(what)
            for _ in range(40):
                out.write(b"x")
                out.flush()
                time.sleep(0.1)

        began = time.monotonic()
        with receiver() as server:
            server.answer = drip
            with pytest.raises(Unanswered, match="timed out"):
                post(server.url, within=0.5)
            assert time.monotonic() - began < 1.5

    @pytest.mark.slow
    def test_an_answer_without_end_is_not_read(self):
        def flood(out: Any) -> None:
            out.write(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10_000_000)

        with receiver() as server:
            server.answer = flood
            assert post(server.url) == 200

    @pytest.mark.slow
    def test_what_is_no_http_is_an_answer_of_nobody(self):
        with receiver() as server:
            server.answer = lambda out: out.write(b"220 mail ready\r\n")
            with pytest.raises(Unanswered):
                post(server.url)

    def test_nobody_there(self):
        with pytest.raises(Unanswered, match="refused"):
            post("http://127.0.0.1:1/")

    def test_a_resolver_that_never_answers_is_left(self):
        began = time.monotonic()
        with pytest.raises(Unanswered, match="not resolved in time"):
            post("https://slow.example.com/", within=0.3, resolve=lambda *_, **__: time.sleep(2))
        assert time.monotonic() - began < 1

    def test_a_name_that_nobody_has(self):
        def unknown(*_: Any, **__: Any) -> Any:
            raise OSError("no such name")

        with pytest.raises(Unanswered, match="cannot be resolved"):
            post("https://nobody.example.com/", resolve=unknown)
