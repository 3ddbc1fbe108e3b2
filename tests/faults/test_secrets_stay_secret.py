"""Law 12, on the whole of it: one story on real parts, told loudly, and no secret told with it.

Web and worker log at DEBUG, the target logs every statement, things fail on purpose. Then whatever
was written anywhere is searched for every secret that took part.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import httpx
import psycopg
import pytest
import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.hashers import PBKDF2PasswordHasher

from approvals.models import Grant
from approvals.states import GrantState
from audit.models import Event
from debugflow.embedded.postgres import binaries
from debugflow.embedded.production import Production
from debugflow.embedded.server import free_port
from debugflow.embedded.state import new_secret
from debugflow.embedded.valkey import EmbeddedValkey
from tests.conftest import DATABASE, PASSWORDS, UNSAFE_BUT_FAST, Control
from tests.faults.place import OTHER_DATABASE, ROOT, Place, eventually, make_place

LOUD = {
    **UNSAFE_BUT_FAST,
    "log_statement": "all",
    "log_min_error_statement": "debug5",
    "log_parameter_max_length_on_error": "-1",
    "log_connections": "on",
}
BASE64 = re.compile(rb"[A-Za-z0-9+/]{24,}={0,2}")


class Fields(HTMLParser):
    """What a browser would send back of a page's forms."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.values: dict[str, str] = {}
        self.passwords: list[str] = []
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = {name: value or "" for name, value in attrs}
        name = told.get("name", "")
        if tag == "input" and told.get("type") == "password":
            self.passwords.append(name)
        elif tag == "input" and (told.get("type") != "checkbox" or "checked" in told):
            self.values[name] = told.get("value", "on")
        elif tag in ("select", "textarea"):
            self._inside = name
        elif tag == "option" and "selected" in told:
            self.values[self._inside] = told.get("value", "")

    def handle_data(self, data: str) -> None:
        if self._inside and self.lasttag == "textarea":
            self.values[self._inside] = data.strip()

    def handle_endtag(self, tag: str) -> None:
        if tag in ("select", "textarea"):
            self._inside = ""


@dataclass
class Site:
    """The story's parts, its secrets by name, and everything that was written, by place."""

    place: Place
    valkey: EmbeddedValkey
    directory: Path
    port: int = field(default_factory=free_port)
    secrets: dict[str, str] = field(default_factory=dict)
    written: dict[str, bytes] = field(default_factory=dict)
    browsers: list[httpx.Client] = field(default_factory=list)

    @property
    def production(self) -> Production:
        return self.place.production

    def hear(self, where: str, said: bytes) -> None:
        self.written[where] = self.written.get(where, b"") + b"\n" + said

    @contextmanager
    def running(self, name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        loud = {
            "REDIS_URL": self.valkey.url,
            "LOG_LEVEL": "DEBUG",
            "EMAIL_HOST": "127.0.0.1",
            "EMAIL_PORT": "9",
            "EMAIL_HOST_USER": "debugflow",
            "EMAIL_HOST_PASSWORD": self.secrets["mail server's password"],
            "DEBUGFLOW_METRICS_TOKEN": self.secrets["metrics token"],
        }
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env=os.environ | self.place.environment | loud,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(timeout=30)
            self.hear(f"log of {name}", log.read_bytes())

    def web(self) -> Any:
        options = ("--host=127.0.0.1", f"--port={self.port}", "--no-proxy-headers")
        return self.running("web", "uvicorn", "debugflow.asgi:application", *options)

    def worker(self) -> Any:
        options = ("--pool=threads", "--concurrency=4", "--queues=provision,notify,revoke,default")
        return self.running("worker", "celery", "-A", "debugflow", "worker", *options)

    def client(self) -> httpx.Client:
        """Somebody's browser: what it is shown is heard, but for what may be shown once."""

        def heard(response: httpx.Response) -> None:
            response.read()
            if not (response.is_success and response.url.path.endswith("/reveal/")):
                self.hear("pages and answers", response.content)
            self.hear("addresses", str(response.url).encode())

        browser = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            trust_env=False,
            timeout=30,
            event_hooks={"response": [heard]},
        )
        self.browsers.append(browser)
        return browser

    def signed_in(self, who: str) -> httpx.Client:
        client = self.client()
        sent = {"username": who, "password": self.secrets["person's password"]}
        answer = client.post("/api/v1/session/", json=sent)
        assert answer.status_code == 200, answer.text
        client.headers["X-CSRFToken"] = answer.json()["csrf_token"]
        self.secrets[f"session of {who}"] = client.cookies["session"]
        return client


@pytest.fixture(scope="module")
def loud(server_directory: Path) -> Iterator[Production]:
    with Production(server_directory / "loud", settings=LOUD) as running:
        with running.superuser("postgres") as server:
            server.execute(f"CREATE DATABASE {OTHER_DATABASE}")
        yield running


@pytest.fixture
def site(
    committed: None,
    loud: Production,
    control: Control,
    server_directory: Path,
    tmp_path: Path,
) -> Iterator[Site]:
    place = make_place(control, loud)
    with EmbeddedValkey(server_directory / "secrets") as valkey:
        site = Site(place, valkey, tmp_path)
        site.secrets = {
            "target's admin password": unquote(urlsplit(loud.admin_url).password or ""),
            "target's superuser password": loud.server.superuser_password,
            "encryption key": settings.ENCRYPTION_KEYS[0],
            "secret key": settings.SECRET_KEY,
            "database password": next(iter(PASSWORDS.values())),
            "broker's password": valkey.password,
            "person's password": new_secret(),
            "mistyped password": new_secret(),
            "new password of a target": new_secret(),
            "mail server's password": new_secret(),
            "metrics token": new_secret(),
        }
        # Not the tests' own hasher, which the real settings do not know.
        hashed = PBKDF2PasswordHasher().encode(site.secrets["person's password"], salt="salt")
        get_user_model().objects.update(password=hashed)
        yield site
        for browser in site.browsers:
            browser.close()
    place.leave()


def ask_and_approve(site: Site, who: str, voters: tuple[httpx.Client, ...]) -> Grant:
    asker = site.signed_in(who)
    wish = {"level": site.place.level.pk, "duration": 3600, "reason": "Orders hang."}
    asked = asker.post("/api/v1/requests/", json=wish)
    assert asked.status_code == 201, asked.text
    for voter in voters:
        vote = {"decision": "approve", "scope_hash": asked.json()["scope_hash"], "comment": "Yes."}
        answer = voter.post(f"/api/v1/requests/{asked.json()['id']}/vote/", json=vote)
        assert answer.status_code == 200, answer.text
    return Grant.objects.get(request=asked.json()["id"])


def is_in(grant: Grant, *states: GrantState) -> bool:
    return Grant.objects.filter(pk=grant.pk, state__in=states).exists()


def answers(client: httpx.Client) -> bool:
    try:
        return client.get("/sign-in/").status_code == 200
    except httpx.TransportError:
        return False


def tell(site: Site) -> None:
    """The story: used, refused, mistyped, failed, broken, and left lying in a queue."""
    with site.web():
        stranger = site.client()
        eventually(lambda: answers(stranger), within=40)
        mistype(site, stranger)
        voters = (site.signed_in("bob"), site.signed_in("carol"))
        with site.worker():
            used(site, ask_and_approve(site, "alice", voters))
            fails_to_open(site, ask_and_approve(site, "amir", voters))
            breaks(site, voters[0])
        hear_machine(site)
        target_is_down(site)
        left_lying(site, voters[0])


def mistype(site: Site, client: httpx.Client) -> None:
    wrong = {"username": "alice", "password": site.secrets["mistyped password"]}
    assert client.post("/api/v1/session/", json=wrong).status_code in (400, 403)
    page = Fields(client.get("/sign-in/").text)
    assert client.post("/sign-in/", data=page.values | wrong).status_code == 200
    token = {"Authorization": f"Bearer {site.secrets['metrics token']}"}
    assert client.get("/metrics", headers=token).status_code == 200


def used(site: Site, grant: Grant) -> None:
    alice = site.signed_in("alice")
    eventually(lambda: is_in(grant, GrantState.ACTIVE), within=40)
    shown = alice.post(f"/api/v1/grants/{grant.pk}/reveal/")
    assert shown.status_code == 200, shown.text
    password = shown.json()["password"]
    site.secrets["temporary password"] = password
    grant.refresh_from_db()
    session = site.place.sign_in(grant, password)
    assert session.execute("SELECT count(*) > 0 FROM orders").fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        site.place.sign_in(grant, site.secrets["mistyped password"])
    hear_machine(site)
    assert alice.get(f"/grants/{grant.pk}/").status_code == 200
    assert alice.post(f"/api/v1/grants/{grant.pk}/release/").status_code == 200
    eventually(lambda: is_in(grant, GrantState.ENDED), within=30)


def fails_to_open(site: Site, grant: Grant) -> None:
    """The target does not know debugflow's admin account any more."""
    with site.production.superuser() as superuser:
        superuser.execute("ALTER ROLE debugflow_admin NOLOGIN")
        try:
            eventually(lambda: bool(Grant.objects.get(pk=grant.pk).last_error), within=30)
        finally:
            superuser.execute("ALTER ROLE debugflow_admin LOGIN")
    eventually(lambda: is_in(grant, GrantState.ACTIVE, GrantState.ENDED), within=40)


def breaks(site: Site, client: httpx.Client) -> None:
    """A defect: a table that is not there, for web and worker."""
    with site.place.control.superuser(DATABASE) as superuser:
        superuser.execute("ALTER TABLE approvals_grant RENAME TO gone")
        try:
            assert client.get("/grants/").status_code == 500
            assert client.post("/api/v1/grants/1/reveal/").status_code == 500
            log = site.directory / "worker.log"
            eventually(lambda: b"a part of the sweep failed" in log.read_bytes())
        finally:
            superuser.execute("ALTER TABLE gone RENAME TO approvals_grant")


def target_is_down(site: Site) -> None:
    """A new password is typed for a target that does not answer: the page says so."""
    ada = site.signed_in("ada")
    address = f"/admin/approvals/target/{site.place.level.target_id}/change/"
    page = Fields(ada.get(address).text)
    assert page.passwords == ["secret_password"]
    typed = {**page.values, "secret_password": site.secrets["new password of a target"]}
    site.production.stop()
    try:
        answer = ada.post(address, data=typed)
    finally:
        site.production.start()
    assert answer.status_code == 200
    assert "did not sign in" in answer.text


def left_lying(site: Site, client: httpx.Client) -> None:
    """With no worker, a revoke's ring stays in the queue."""
    grant = Grant.objects.exclude(state=GrantState.ENDED).first()
    if grant is None:
        grant = ask_and_approve(site, "alice", (client, site.signed_in("chen")))
    sent = client.post(f"/api/v1/grants/{grant.pk}/revoke/", json={"reason": "Enough."})
    assert sent.status_code == 200, sent.text
    with redis.Redis.from_url(site.valkey.url) as keys:
        eventually(lambda: bool(keys.keys("debugflow:*revoke*") or keys.keys("debugflow:*prov*")))
        for key in keys.scan_iter("*"):
            site.hear("broker", key + b" " + repr(content(keys, key)).encode())


def content(keys: redis.Redis, key: bytes) -> object:
    readers: dict[bytes, Any] = {
        b"string": keys.get,
        b"list": lambda name: keys.lrange(name, 0, -1),
        b"hash": keys.hgetall,
        b"set": keys.smembers,
        b"zset": lambda name: keys.zrange(name, 0, -1, withscores=True),
    }
    kind: Any = keys.type(key)
    return readers[kind](key)


def hear_machine(site: Site) -> None:
    """Every process's arguments, and the environment of the servers: other people's to read."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes()
            site.hear("arguments of processes", command)
            if Path(os.readlink(process / "exe")).name in {"postgres", "valkey-server"}:
                site.hear("environments of servers", (process / "environ").read_bytes())
        except OSError:
            continue


def hear_the_rest(site: Site) -> None:
    site.hear("log of the target", site.production.server.log.read_bytes())
    site.hear("log of the broker", site.valkey.log.read_bytes())
    for event in Event.objects.all():
        site.hear("Events", bytes(event.canonical))
    dumped = subprocess.run(
        [str(binaries() / "pg_dump"), "--inserts", site.place.control.postgres.url(DATABASE)],
        check=True,
        capture_output=True,
    )
    site.hear("dump of the database", dumped.stdout)


def forms(secret: str) -> set[bytes]:
    return {secret.encode(), quote(secret, safe="").encode()}


def found(site: Site) -> set[tuple[str, str]]:
    """Which secret stands where, in clear or as base64, as the broker's messages are."""
    hits = set()
    for where, text in site.written.items():
        decoded = [base64.b64decode(one[: len(one) // 4 * 4]) for one in BASE64.findall(text)]
        whole = b"\n".join([text, *decoded])
        hits |= {
            (name, where)
            for name, secret in site.secrets.items()
            if any(form in whole for form in forms(secret))
        }
    return hits


def test_no_secret_is_written_anywhere(site: Site):
    tell(site)
    hear_the_rest(site)
    assert len(site.secrets) >= 16
    assert all(len(secret) >= 12 for secret in site.secrets.values())
    # What is searched is what it is said to be: loud, and of this story.
    for where, mark in (
        ("log of web", b"DEBUG"),
        ("log of worker", b"a part of the sweep failed"),
        ("log of the target", b"CREATE ROLE"),
        ("log of the target", b"SCRAM-SHA-256"),
        ("Events", b"grant.revealed"),
        ("broker", b"approvals.tasks."),
        ("pages and answers", b"Something broke on our side"),
        ("arguments of processes", b"uvicorn"),
        ("environments of servers", b"PATH="),
        ("dump of the database", b"django_session"),
    ):
        assert mark.lower() in site.written.get(where, b"").lower(), (where, mark)
    # Django looks sessions up by their id; a dump is kept as what it is: docs/backup.md.
    allowed = {(name, "dump of the database") for name in site.secrets if "session" in name}
    assert found(site) - allowed == set()
