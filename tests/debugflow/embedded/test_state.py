"""Where the servers keep their files, and that nobody else's permissions are changed for it."""

import os

import pytest

from debugflow.embedded import state
from debugflow.embedded.state import (
    DirectoryLock,
    EmbeddedError,
    kept_secret,
    make_directory,
    remove_state,
    scratch,
    state_dir,
)


@pytest.fixture
def checkout(place, monkeypatch):
    """A checkout of its own, so that nothing of this one is touched."""
    monkeypatch.delenv("DEBUGFLOW_STATE_DIR", raising=False)
    monkeypatch.setattr(state, "CHECKOUT", place)
    return place


def test_it_is_inside_the_checkout(checkout):
    assert state_dir() == checkout / ".debugflow"
    assert state_dir().stat().st_mode & 0o777 == (0o711 if os.geteuid() == 0 else 0o700)


def test_the_environment_chooses_another(checkout, monkeypatch, tmp_path):
    chosen = tmp_path / "chosen"
    monkeypatch.setenv("DEBUGFLOW_STATE_DIR", str(chosen))
    assert state_dir() == chosen
    assert not (checkout / ".debugflow").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs servers as another user")
def test_checkouts_that_the_system_user_cannot_reach_get_one_each_elsewhere(
    checkout, tmp_path, monkeypatch
):
    monkeypatch.setattr(state, "SYSTEM_STATE", checkout / "elsewhere")
    found = set()
    for name in ("one", "two"):
        private = tmp_path / name
        private.mkdir(mode=0o700)
        monkeypatch.setattr(state, "CHECKOUT", private)
        found.add(state_dir())
        assert private.stat().st_mode & 0o777 == 0o700
        assert list(private.iterdir()) == []
    assert len(found) == 2
    assert {path.parent for path in found} == {checkout / "elsewhere"}


def test_a_directory_that_exists_keeps_its_permissions(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o750)
    make_directory(shared)
    assert shared.stat().st_mode & 0o777 == 0o750


def test_a_secret_is_made_once_and_for_us_alone(tmp_path):
    first = kept_secret(tmp_path / "key")
    assert len(first) == 64
    assert kept_secret(tmp_path / "key") == first
    assert kept_secret(tmp_path / "other") != first
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600


def test_a_lock_is_free_again_once_released(tmp_path):
    first, second = DirectoryLock(tmp_path), DirectoryLock(tmp_path)
    first.acquire()
    with pytest.raises(EmbeddedError, match=f"{tmp_path} is in use by process {os.getpid()}"):
        second.acquire()
    first.release()
    second.acquire()
    second.release()


def test_a_lock_dies_with_its_process(tmp_path, program):
    holder = program(
        "import sys, time; from pathlib import Path\n"
        "from debugflow.embedded.state import DirectoryLock\n"
        "DirectoryLock(Path(sys.argv[1])).acquire(); print('held', flush=True); time.sleep(600)",
        tmp_path,
    )
    assert holder.stdout.readline() == "held\n"
    lock = DirectoryLock(tmp_path)
    with pytest.raises(EmbeddedError, match=f"process {holder.pid}"):
        lock.acquire()
    holder.kill()
    holder.wait()
    lock.acquire()
    lock.release()


def test_what_a_killed_process_left_is_swept_and_what_is_in_use_is_not(checkout):
    with scratch() as used:
        left = used.parent / "left"
        left.mkdir()
        with scratch() as another:
            assert not left.exists()
            assert used.exists()
        assert not another.exists()
    assert not used.exists()


def test_state_is_removed_but_not_while_it_is_used(checkout):
    lock = DirectoryLock(state_dir())
    lock.acquire()
    with pytest.raises(EmbeddedError, match="in use"):
        remove_state()
    lock.release()
    (checkout / ".debugflow" / "data").touch()
    remove_state()
    assert list(checkout.iterdir()) == []


def test_a_directory_of_the_users_own_choice_is_not_removed(checkout, monkeypatch, tmp_path):
    (tmp_path / "thesis").touch()
    monkeypatch.setenv("DEBUGFLOW_STATE_DIR", str(tmp_path))
    remove_state()
    assert (tmp_path / "thesis").exists()
