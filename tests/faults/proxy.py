"""A TCP relay in front of one server, which can cut, hold up, swallow, slow down and refuse."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AbstractContextManager, suppress
from typing import Any, Self

LOCALHOST = "127.0.0.1"


class Proxy(AbstractContextManager["Proxy"]):
    """Relays connections to `upstream`, a port of this machine, on a thread of its own."""

    def __init__(self, upstream: int) -> None:
        self.upstream = upstream
        self.port = 0
        self.latency = 0.0  # seconds that every packet of either side takes
        self.met = threading.Event()  # what `swallow_from` waits for was seen
        self._swallowing = False
        self._bait = b""
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self._flows.set()
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *error: object) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def listen(self) -> None:
        """Take connections, on the same port as ever."""
        self._do(self._listen())

    def refuse(self) -> None:
        """End all connections and take no more: the port is closed."""
        self._do(self._refuse())

    def cut(self) -> None:
        """Reset all connections; new ones are taken."""
        self._do(self._cut())

    def stall(self) -> None:
        """Accept and hold every byte back, until `flow`."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def swallow(self) -> None:
        """Accept, and lose every byte from now on, until `flow` ends the connections hit."""
        self._swallowing = True

    def swallow_from(self, bait: bytes) -> None:
        """Begin to `swallow` with the packet in which a client says `bait`."""
        self._bait = bait
        self.met.clear()

    def flow(self) -> None:
        """Be a good network again. What was swallowed is lost, and so are its connections."""
        lost, self._swallowing, self._bait, self.latency = self._swallowing, False, b"", 0.0
        self._loop.call_soon_threadsafe(self._flows.set)
        if lost:
            self.cut()

    def _do(self, what: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _listen(self) -> None:
        if self._server is not None and self._server.is_serving():
            return
        self._server = await asyncio.start_server(self._accept, LOCALHOST, self.port, backlog=256)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _refuse(self) -> None:
        if self._server is not None:
            self._server.close()
        await self._cut()

    async def _cut(self) -> None:
        for end in list(self._ends):
            end.transport.abort()

    async def _leave(self) -> None:
        await self._refuse()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._cut()
        await asyncio.sleep(0)  # for what was cut to be closed

    def _accept(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        """Known at once: a task that is cancelled before it begins would leave it open."""
        self._ends.add(client)
        relay = self._loop.create_task(self._relay(reader, client))
        self._relays.add(relay)
        relay.add_done_callback(self._relays.discard)

    async def _relay(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        # Cancelled when we leave; the loop's own streams report that as an error.
        with suppress(OSError, asyncio.CancelledError):
            await self._flows.wait()
            answers, server = await asyncio.open_connection(LOCALHOST, self.upstream)
            self._ends.add(server)
            pumps = (self._pump(reader, server, self._bait_in), self._pump(answers, client, None))
            await asyncio.gather(*pumps)
            self._ends.discard(server)
        self._ends.discard(client)
        client.transport.abort()

    def _bait_in(self, packet: bytes) -> None:
        if self._bait and self._bait in packet:
            self._swallowing = True
            self.met.set()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, look: Any
    ) -> None:
        try:
            with suppress(OSError):
                while packet := await source.read(65536):
                    if look:
                        look(packet)
                    await self._flows.wait()
                    await asyncio.sleep(self.latency)
                    if not self._swallowing:
                        sink.write(packet)
                        await sink.drain()
        finally:
            if not self._swallowing:
                sink.close()
