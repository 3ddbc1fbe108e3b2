"""What holds the story to its word: every check here is shown to fail where it must."""

import io
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import psycopg
import pytest

from debugflow.embedded.postgres import EmbeddedPostgres
from debugflow.embedded.state import scratch
from debugflow.embedded.story.checks import StoryFailed, expect, expect_between, wait_until
from debugflow.embedded.story.holder import Credential, Session, SignIns
from debugflow.embedded.story.narrator import Narrator, in_words
from debugflow.embedded.story.people import Person


def soon(seconds: float = 5) -> float:
    return time.time() + seconds


def test_equal_passes_and_a_difference_names_both():
    expect("the state", expected="active", got="active")
    with pytest.raises(StoryFailed, match=r"the state\n  expected: active\n  got:      ended"):
        expect("the state", expected="active", got="ended")


@pytest.mark.parametrize("seconds", [0.0, 0.5, 1.0])
def test_a_time_within_its_bounds_passes(seconds):
    expect_between("closing", seconds, at_least=0, at_most=1)


@pytest.mark.parametrize("seconds", [-0.001, 1.001, float("nan")])
def test_a_time_outside_its_bounds_fails(seconds):
    with pytest.raises(StoryFailed, match="between 0 and 1 s"):
        expect_between("closing", seconds, at_least=0, at_most=1)


def test_waiting_returns_what_was_accepted_and_otherwise_tells_the_last_sight():
    sights = iter(["scheduled", "provisioning", "active"])
    seen = wait_until("opening", lambda: next(sights), lambda state: state == "active", within=5)
    assert seen == "active"
    with pytest.raises(StoryFailed, match="got:      scheduled"):
        wait_until("opening", lambda: "scheduled", lambda state: state == "active", within=0.1)


def test_a_step_that_failed_is_marked_and_fails_on():
    out = io.StringIO()
    narrator = Narrator(out)
    with narrator.step("alice asks") as step:
        step.outcome = "request 1"
    with pytest.raises(StoryFailed), narrator.step("mallory asks"):
        expect("the answer", expected=404, got=200)
    good, bad = out.getvalue().splitlines()
    assert "✓ alice asks → request 1" in good
    assert "✗ mallory asks" in bad


def test_a_measured_time_is_kept_and_one_that_is_too_long_is_not():
    out = io.StringIO()
    narrator = Narrator(out)
    assert narrator.measure("end → closed", 0.041, at_most=5) == "41 ms"
    with pytest.raises(StoryFailed):
        narrator.measure("end → refused", 5.5, at_most=5)
    with pytest.raises(StoryFailed):
        narrator.measure("closed before the end", -2, at_most=5)
    narrator.measured_table()
    assert "end → closed       41 ms  5 s" in out.getvalue()
    assert "refused" not in out.getvalue()
    assert in_words(2.314) == "2.31 s"


@pytest.fixture
def answering() -> Iterator[Callable[[int, str], Person]]:
    """alice, before a web server that always answers the same."""
    servers: list[HTTPServer] = []

    def start(status: int, body: str) -> Person:
        class Same(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body.encode())

            do_POST = do_GET

            def log_message(self, *args: object) -> None:
                """Nothing on the terminal."""

        server = HTTPServer(("127.0.0.1", 0), Same)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return Person("alice", f"http://127.0.0.1:{server.server_port}")

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_another_status_than_expected_fails_and_shows_the_answer(answering):
    alice = answering(500, "it broke")
    with pytest.raises(StoryFailed, match="got:      500 it broke"):
        alice.get("requests/1/")
    with pytest.raises(StoryFailed, match="expected: 404"):
        alice.cannot_see("requests/1/")
    alice.close()


def test_a_success_where_a_refusal_is_due_fails(answering):
    alice = answering(200, "{}")
    with pytest.raises(StoryFailed, match="expected: 403"):
        alice.refused("requests/1/vote/", {}, status=403, code="self_approval")
    alice.close()


def test_a_refusal_for_another_reason_fails(answering):
    alice = answering(403, '{"code": "not_eligible"}')
    told = alice.refused("requests/1/vote/", {}, status=403, code="not_eligible")
    assert told == "403 not_eligible"
    with pytest.raises(StoryFailed, match="expected: self_approval\n  got:      not_eligible"):
        alice.refused("requests/1/vote/", {}, status=403, code="self_approval")
    alice.close()


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    with scratch() as directory, EmbeddedPostgres(directory, settings={"fsync": "off"}) as running:
        yield running


@pytest.fixture
def bob(server) -> Iterator[psycopg.Connection]:
    """The target's superuser."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("CREATE ROLE dbgf_7 LOGIN PASSWORD 'shown-once'")
        yield connection
        connection.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = 'dbgf_7'"
        )
        connection.execute("DROP ROLE dbgf_7")


@pytest.fixture
def alices(server) -> Credential:
    where = {"host": "127.0.0.1", "port": server.port, "database": "postgres"}
    return Credential({**where, "user": "dbgf_7", "sslmode": "disable"}, "shown-once")


@pytest.mark.parametrize("query", ["SELECT 1", "SELECT pg_sleep(600)"])
def test_a_session_ends_when_the_target_closes_it(bob, alices, query):
    session = Session(alices, query=query).start()
    with pytest.raises(StoryFailed, match="still going on"):
        session.ended_at(by=soon(0.2))
    began = time.time()
    bob.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'dbgf_7'")
    assert began <= session.ended_at(by=soon()) <= time.time()


def test_a_failed_query_is_no_end_of_a_session(bob, alices):
    session = Session(alices, query="SELECT pg_sleep(600)")
    session.db.execute("SET statement_timeout = '50ms'")
    with pytest.raises(StoryFailed, match="statement timeout"):
        session.start().ended_at(by=soon())
    session.db.close()


def test_sign_ins_go_on_until_the_target_refuses_one(bob, alices):
    sign_ins = SignIns(alices, since=time.time()).start()
    with pytest.raises(StoryFailed, match="still going on"):
        sign_ins.ended_at(by=soon(0.2))
    bob.execute("ALTER ROLE dbgf_7 NOLOGIN")
    sign_ins.ended_at(by=soon())
    assert sign_ins.refusal == 'role "dbgf_7" is not permitted to log in'


def test_a_target_that_cannot_be_asked_has_refused_nothing(alices):
    nowhere = Credential({**alices.connection, "port": 1}, "shown-once")
    with pytest.raises(StoryFailed, match="to be ended by the target"):
        SignIns(nowhere, since=time.time()).start().ended_at(by=soon())


def test_a_credential_does_not_print_its_password(alices):
    assert "shown-once" not in repr(alices)
