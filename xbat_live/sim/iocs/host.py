"""Serves a `SimulatedBeamline` over Channel Access: sockets, readiness, signals, clean end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import caproto.asyncio.server as caproto_server

from ..environment import LOOPBACK, PortTakenError
from .assembly import SimulatedBeamline

if TYPE_CHECKING:
    from ..twin import Twin

logger = logging.getLogger(__name__)
_REPEATER_CONFIRM, _REPEATER_REGISTER, _SEARCH = 17, 24, 6
_CA_VERSION = 13
_MAX_CLIENTS = 64
_PARENT_CHECK_S = 1.0


class Repeater(asyncio.DatagramProtocol):
    """A Channel Access repeater for loopback: confirms clients and passes the server's beacons on to them.

    Without a listener the server's beacons come back as ConnectionRefused and fill the log, and libca complains.
    """

    def __init__(self) -> None:
        self._clients: dict[tuple[str, int], None] = {}
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Register a client, or forward a beacon."""
        if len(data) == 0 or (len(data) >= 2 and struct.unpack(">H", data[:2])[0] == _REPEATER_REGISTER):
            self._clients[addr] = None
            while len(self._clients) > _MAX_CLIENTS:
                del self._clients[next(iter(self._clients))]
            address = struct.unpack(">I", socket.inet_aton(LOOPBACK))[0]
            self._transport.sendto(struct.pack(">HHHHII", _REPEATER_CONFIRM, 0, 0, 0, 0, address), addr)
            return
        for client in self._clients:
            if client != addr:
                self._transport.sendto(data, client)

    def error_received(self, exc: Exception) -> None:
        """Ignore that a client is gone; UDP does not tell which."""
        logger.debug("repeater: %s", exc)


class _OneLineTracebacks(logging.Filter):
    """caproto logs a refused put as an error with traceback; the reason alone is what the user needs."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and str(record.msg).startswith("Invalid write request"):
            error = record.exc_info[1]
            record.msg, record.args, record.exc_info = "put refused: %s", (error,), None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


def _listening_socket_maker(port: int) -> Callable[[str, int], Any]:
    """Make sockets for caproto: TCP_NODELAY (else Nagle and delayed ACK cost 40 ms), and never on another port."""

    async def make(address: str, wanted_port: int) -> socket.socket:
        if wanted_port != port:
            raise PortTakenError(port)  # caproto goes on to random ports; not a CaprotoError, so it ends the start
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        try:
            sock.bind((address, port))
            sock.listen(64)  # here and not later: of two servers started together only one gets beyond this
        except OSError as error:
            sock.close()
            raise PortTakenError(port) from error
        return sock

    return make


async def _answers(name: str, port: int, timeout_s: float) -> bool:
    """Search for a PV over UDP as any client does."""
    loop = asyncio.get_running_loop()
    payload = name.encode() + b"\0"
    payload += b"\0" * (-len(payload) % 8)
    request = struct.pack(">HHHHII", 0, 0, 0, _CA_VERSION, 0, 0)
    request += struct.pack(">HHHHII", _SEARCH, len(payload), 5, _CA_VERSION, 1, 1) + payload
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            try:
                await loop.sock_sendto(sock, request, (LOOPBACK, port))
                await asyncio.wait_for(loop.sock_recv(sock, 1024), 0.05)
            except (TimeoutError, OSError):
                await asyncio.sleep(0.005)
                continue
            return True
    return False


class SimulatorHost:
    """Runs the beamline until it is told to stop.

    Parameters
    ----------
    prefix : str
        Prefix of all PVs.
    port : int
        Channel Access port, TCP and UDP; beacons on the next one.
    work_directory : pathlib.Path
        For truth files.
    ready_file : pathlib.Path or None
        Written once Channel Access answers: JSON with pid, port, prefix.
    parent_pid : int or None
        End when this process is no longer the parent.
    """

    def __init__(
        self,
        *,
        prefix: str,
        port: int,
        work_directory: Path,
        ready_file: Path | None,
        parent_pid: int | None,
    ) -> None:
        self._prefix, self._port = prefix, port
        self._work_directory, self._ready_file, self._parent_pid = work_directory, ready_file, parent_pid
        self._stop = asyncio.Event()

    async def run(self, make_twin: Callable[[], Twin]) -> None:
        """Serve until asked to stop, then end cleanly.

        Parameters
        ----------
        make_twin : callable
            Makes the twin.

        Raises
        ------
        PortTakenError
            If another server got the port.
        """
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._check_parent)
        logging.getLogger("caproto").setLevel(logging.WARNING)
        for handler in logging.getLogger().handlers:
            handler.addFilter(_OneLineTracebacks())
        # the only place where caproto lets socket options in (1.3.0)
        caproto_server._create_bound_tcp_socket = _listening_socket_maker(self._port)  # noqa: SLF001
        sink = await self._listen_for_beacons()
        twin = make_twin()
        beamline = SimulatedBeamline(
            twin,
            prefix=self._prefix,
            work_directory=self._work_directory,
            request_stop=self._stop.set,
        )
        server = loop.create_task(caproto_server.Context(beamline.pvdb, [LOOPBACK]).run())
        helpers = [loop.create_task(beamline.keep_updated()), loop.create_task(self._watch_parent())]
        helpers.append(loop.create_task(self._announce()))
        stopped = loop.create_task(self._stop.wait())
        try:
            await asyncio.wait({server, stopped}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*helpers, stopped):
                task.cancel()
            await beamline.shut_down()
            sink.close()
            if self._ready_file is not None:
                self._ready_file.unlink(missing_ok=True)
            if server.done():
                server.result()  # the server ended by itself: why?
            else:
                server.cancel()
                await asyncio.wait({server}, timeout=2.0)

    async def _listen_for_beacons(self) -> Any:
        try:
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
                Repeater, local_addr=(LOOPBACK, self._port + 1)
            )
        except OSError as error:
            raise PortTakenError(self._port + 1) from error
        return transport

    async def _announce(self) -> None:
        if not await _answers(self._prefix + "TWIN:Ready_RBV", self._port, 10.0):
            logger.error("Channel Access does not answer on %s:%d; stopping", LOOPBACK, self._port)
            self._stop.set()
            return
        logger.info("ready: %sTWIN:Ready_RBV on %s:%d", self._prefix, LOOPBACK, self._port)
        if self._ready_file is not None:
            content = json.dumps({"pid": os.getpid(), "port": self._port, "prefix": self._prefix})
            draft = self._ready_file.with_name(self._ready_file.name + f".{os.getpid()}")
            draft.write_text(content)
            draft.replace(self._ready_file)

    async def _watch_parent(self) -> None:
        while self._parent_pid is not None:
            self._check_parent()
            await asyncio.sleep(_PARENT_CHECK_S)

    def _check_parent(self) -> None:
        if self._parent_pid is not None and os.getppid() != self._parent_pid:
            logger.info("parent %d is gone; stopping", self._parent_pid)
            self._stop.set()


def serve(
    *,
    prefix: str,
    port: int,
    work_directory: Path,
    ready_file: Path | None,
    parent_pid: int | None,
    make_twin: Callable[[], Twin],
) -> None:
    """Run a `SimulatorHost` in a new event loop; see there."""
    sys.setswitchinterval(5e-4)  # rendering threads hand the interpreter back to Channel Access sooner

    async def main() -> None:
        host = SimulatorHost(
            prefix=prefix,
            port=port,
            work_directory=work_directory,
            ready_file=ready_file,
            parent_pid=parent_pid,
        )
        await host.run(make_twin)

    asyncio.run(main())
