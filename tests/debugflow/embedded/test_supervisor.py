"""Named processes side by side: shown, reported when dead, and never left behind."""

import io
import os
import signal
import subprocess
import sys
import time

import pytest

from debugflow.embedded.spawn import born
from debugflow.embedded.supervisor import Supervisor

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n{SLEEPER}"
PARENT = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', {SLEEPER!r}], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
SUPERVISE = """
import os, sys
from contextlib import suppress
from debugflow.embedded.supervisor import Supervisor, signals_as_interrupt
with suppress(KeyboardInterrupt), signals_as_interrupt(), Supervisor() as supervisor:
    for name, code in zip(sys.argv[1::2], sys.argv[2::2]):
        process = supervisor.start(name, [sys.executable, "-c", code], env=os.environ)
        supervisor.say(name, str(process.pid))
    supervisor.wait()
print("stopped in good order")
"""


class Terminal(io.StringIO):
    """What a person sees; `shows` waits for it, since lines come from threads."""

    def __init__(self, *, tty: bool = False) -> None:
        super().__init__()
        self._tty = tty

    def isatty(self) -> bool:
        return self._tty

    def shows(self, text: str) -> bool:
        deadline = time.monotonic() + 15
        while text not in self.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
        return text in self.getvalue()


@pytest.fixture
def terminal():
    return Terminal()


@pytest.fixture
def supervisor(terminal):
    with Supervisor(terminal) as running:
        yield running


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def start(supervisor: Supervisor, name: str, code: str) -> "subprocess.Popen[bytes]":
    return supervisor.start(name, python(code), env=os.environ)


def test_every_line_stands_under_its_name_without_colours(supervisor, terminal):
    start(supervisor, "web", "print('serving'); import sys; print('careful', file=sys.stderr)")
    start(supervisor, "worker", "print('ready')")
    assert terminal.shows("web      | serving\n")
    assert terminal.shows("web      | careful\n")
    assert terminal.shows("worker   | ready\n")
    assert "\x1b" not in terminal.getvalue()


@pytest.mark.parametrize(("no_colour", "coloured"), [("", True), ("1", False)])
def test_a_terminal_gets_colours_unless_it_wants_none(monkeypatch, no_colour, coloured):
    monkeypatch.setenv("NO_COLOR", no_colour)
    terminal = Terminal(tty=True)
    with Supervisor(terminal) as supervisor:
        start(supervisor, "web", "print('serving')")
        assert terminal.shows(" serving\n")
    assert ("\x1b[36mweb      |\x1b[0m serving" in terminal.getvalue()) is coloured


def test_a_dead_process_is_reported_and_stays_down(supervisor, terminal):
    start(supervisor, "web", "raise SystemExit(3)")
    start(supervisor, "worker", SLEEPER)
    assert terminal.shows("web      | ended with exit code 3; it stays down")
    supervisor.kill("worker")
    assert terminal.shows("worker   | was killed by SIGKILL; it stays down")
    assert not supervisor.alive("web")
    assert not supervisor.alive("worker")
    with pytest.raises(KeyError):
        supervisor.kill("gateway")


def test_a_name_is_free_again_only_after_its_process_ended(supervisor, terminal):
    first = start(supervisor, "web", SLEEPER)
    with pytest.raises(ValueError, match="web is running"):
        start(supervisor, "web", SLEEPER)
    supervisor.kill("web")
    first.wait()
    second = start(supervisor, "web", SLEEPER)
    assert supervisor.alive("web")
    assert second.pid != first.pid


def test_stop_ends_the_stubborn_the_stopped_and_their_children(supervisor, terminal):
    stubborn = start(supervisor, "stubborn", STUBBORN)
    parent = start(supervisor, "parent", PARENT)
    asleep = start(supervisor, "asleep", SLEEPER)
    assert terminal.shows("stubborn | up")
    assert terminal.shows("asleep   | up")
    assert terminal.shows("parent   | ")
    child = int(terminal.getvalue().split("parent   | ")[1].split()[0])
    supervisor.kill("asleep", signal.SIGSTOP)
    supervisor.stop(grace=1.0)
    assert [born(pid) for pid in (stubborn.pid, parent.pid, asleep.pid, child)] == [None] * 4
    assert "stays down" not in terminal.getvalue()


def test_lines_may_go_to_a_file_for_each_process(tmp_path, terminal):
    with Supervisor(terminal, log_dir=tmp_path / "logs") as supervisor:
        start(supervisor, "web", "print('serving')").wait()
        assert terminal.shows("web      | ended with exit code 0")
    assert (tmp_path / "logs" / "web.log").read_text() == "serving\n"
    assert "serving" not in terminal.getvalue()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_wait_ends_all_when_it_is_asked_to(program, gone, signum):
    main = program(SUPERVISE, "web", SLEEPER, "worker", SLEEPER)
    pids, ups = [], 0
    while ups < 2:
        words = main.stdout.readline().split()
        if words[-1] == "up":
            ups += 1
        else:
            pids.append(int(words[-1]))
    main.send_signal(signum)
    assert main.stdout.read() == "stopped in good order\n"
    assert main.wait() == 0
    assert all(gone(pid) for pid in pids)


def test_wait_returns_when_everything_has_ended(program):
    main = program(SUPERVISE, "web", "print('brief')")
    said = main.stdout.read()
    assert said.index("web      | brief\n") < said.index("web      | ended with exit code 0")
    assert said.endswith("stopped in good order\n")


@pytest.mark.slow
def test_nothing_outlives_a_killed_supervisor(program, gone):
    main = program(SUPERVISE, "parent", PARENT, "asleep", SLEEPER, "stubborn", STUBBORN)
    pids: list[int] = []
    ups = 0
    while len(pids) < 4 or ups < 2:
        word = main.stdout.readline().split()[-1]
        ups += word == "up"
        pids += [int(word)] if word.isdecimal() else []
    os.kill(pids[1], signal.SIGSTOP)
    main.kill()
    main.wait()
    assert all(gone(pid) for pid in pids)
