"""The embedded Valkey: a password, no eviction, and it ends when it must."""

import os
import signal

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from debugflow.embedded.spawn import born
from debugflow.embedded.state import EmbeddedError
from debugflow.embedded.valkey import EmbeddedValkey

ONCE = Retry(NoBackoff(), 0)


@pytest.fixture
def valkey(place):
    with EmbeddedValkey(place / "valkey") as server:
        yield server


def test_it_answers_those_who_know_the_password(valkey):
    with redis.Redis.from_url(valkey.url) as client:
        assert client.set("bell", "rung")
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
        assert client.config_get("bind") == {"bind": "127.0.0.1"}


def test_it_refuses_those_who_do_not(valkey):
    with (
        redis.Redis(port=valkey.port, retry=ONCE) as mallory,
        pytest.raises(redis.AuthenticationError),
    ):
        mallory.ping()
    conf = valkey.directory / "valkey.conf"
    assert conf.stat().st_mode & 0o777 == 0o600
    command = f"/proc/{valkey.pid}/cmdline"
    if os.path.exists(command):
        with open(command, encoding="utf-8") as arguments:
            assert valkey.password not in arguments.read()


def test_a_killed_server_comes_back_under_the_same_url(valkey):
    url, pid = valkey.url, valkey.pid
    valkey.kill()
    assert born(pid) is None
    with redis.Redis.from_url(url, retry=ONCE) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    valkey.start()
    with redis.Redis.from_url(url) as client:
        assert client.ping()


def test_a_stopped_process_can_be_ended(valkey):
    pid = valkey.pid
    os.kill(pid, signal.SIGSTOP)
    valkey.stop()
    assert born(pid) is None


def test_the_same_directory_twice_is_refused(valkey):
    with pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}"):
        EmbeddedValkey(valkey.directory).start()
