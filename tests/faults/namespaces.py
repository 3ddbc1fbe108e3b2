"""Hosts on one machine: network namespaces on one bridge, which can be kept from one another.

A host that another does not reach has a wrong hardware address for it, so that packets are lost
without a word, as on a broken network. Needs root, CAP_NET_ADMIN and `ip`; nothing is left behind.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

NET = 0x40000000  # CLONE_NEWNET
NOBODY = "02:00:00:00:00:fe"  # a hardware address that nobody on the bridge has


@cache
def missing() -> str:
    """Why there can be no namespaces here; empty if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    name = f"dbgf-try-{os.getpid()}"
    if _ip("netns", "add", name).returncode:
        return "no network namespace can be made here (CAP_NET_ADMIN, CAP_SYS_ADMIN)"
    bridge = _ip("-n", name, "link", "add", "name", "br0", "type", "bridge").returncode
    _ip("netns", "del", name)
    return "no bridge can be made here" if bridge else ""


def _ip(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *arguments], check=False, capture_output=True, text=True)


def _must(*arguments: str) -> None:
    ended = _ip(*arguments)
    assert ended.returncode == 0, f"ip {' '.join(arguments)}: {ended.stderr}"


@dataclass(frozen=True)
class Host:
    """One namespace, with one address."""

    namespace: str
    address: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What a command begins with to run there."""
        return ("ip", "netns", "exec", self.namespace)

    def do(self, what: Callable[[], Any]) -> None:
        """Call it on a thread that is there. Processes that it starts stay there."""
        failed: list[BaseException] = []

        def there() -> None:
            try:
                _enter(self.namespace)
                what()
            except BaseException as error:  # noqa: BLE001 - raised below, where it was called
                failed.append(error)

        thread = threading.Thread(target=there)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]

    def loses(self, other: Host) -> None:
        """Whatever it sends to the other is lost from now on."""
        self._neighbour("replace", other, "lladdr", NOBODY, "nud", "permanent")

    def finds(self, other: Host) -> None:
        self._neighbour("del", other)

    def _neighbour(self, verb: str, other: Host, *more: str) -> None:
        _must("-n", self.namespace, "neigh", verb, other.address, "dev", "eth0", *more)


def _enter(namespace: str) -> None:
    with Path(f"/run/netns/{namespace}").open("rb") as place:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(place.fileno(), NET):
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")


def part(one: Host, other: Host) -> None:
    """Lose whatever the two send each other."""
    one.loses(other)
    other.loses(one)


def heal(one: Host, other: Host) -> None:
    one.finds(other)
    other.finds(one)


@dataclass
class Network:
    """Hosts, this process's own namespace among them by the bridge's address."""

    prefix: str
    bridge: str
    hosts: dict[str, Host] = field(default_factory=dict)

    def host(self, name: str, place: ExitStack) -> Host:
        number = len(self.hosts) + 2
        made = Host(f"{self.bridge}-{name}", f"{self.prefix}.{number}")
        _must("netns", "add", made.namespace)
        place.callback(_ip, "netns", "del", made.namespace)
        outer = f"{self.bridge}{number}"
        _must("link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", made.namespace)
        place.callback(_ip, "link", "del", outer)
        _must("link", "set", outer, "master", self.bridge, "up")
        for link in ("lo", "eth0"):
            _must("-n", made.namespace, "link", "set", link, "up")
        _must("-n", made.namespace, "address", "add", f"{made.address}/24", "dev", "eth0")
        self.hosts[name] = made
        return made


@contextmanager
def network(*names: str) -> Iterator[Network]:
    """Hosts of these names, each of which reaches each other, and is reached from here."""
    number = os.getpid() % 65536
    made = Network(f"10.{200 + number // 256 % 50}.{number % 256}", f"df{os.getpid()}")
    with ExitStack() as place:
        _must("link", "add", made.bridge, "type", "bridge")
        place.callback(_ip, "link", "del", made.bridge)
        _must("address", "add", f"{made.prefix}.1/24", "dev", made.bridge)
        _must("link", "set", made.bridge, "up")
        for name in names:
            made.host(name, place)
        yield made
