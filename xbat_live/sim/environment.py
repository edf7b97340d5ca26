"""Channel Access isolation: which environment keeps one simulated beamline on loopback and on its own ports.

Nothing here imports caproto or pyepics: both read ``EPICS_*`` (caproto's server also
``CAPROTO_SERVER_*``) when they are imported or first used, so these values have to be in ``os.environ`` before that.
"""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"
MAX_ARRAY_BYTES = 20_000_000
_MIN_PORT = 1024
_MAX_PORT = 65534  # the beacons use the port above


class PortTakenError(RuntimeError):
    """The wanted Channel Access port is already in use on this machine."""

    def __init__(self, port: int) -> None:
        super().__init__(
            f"port {port} is taken on {LOOPBACK} (TCP or UDP): another xbat sim? Stop it or use another --port"
        )
        self.port = port


def channel_access_environment(port: int) -> dict[str, str]:
    """Environment that confines Channel Access clients and servers to loopback and to one port.

    Parameters
    ----------
    port : int
        Port of the IOC, for TCP and for UDP searches. Beacons and the repeater use ``port + 1``.

    Returns
    -------
    dict of str to str
        ``EPICS_*`` variables for both client and server. Put them in ``os.environ`` before importing epics or caproto.

    Raises
    ------
    ValueError
        If the port is outside 1024 to 65534.
    """
    if not _MIN_PORT <= port <= _MAX_PORT:
        raise ValueError(f"port {port} is outside {_MIN_PORT} to {_MAX_PORT}; choose one inside, or 0 for a free one")
    server, beacon = str(port), str(port + 1)
    return {
        "EPICS_CA_SERVER_PORT": server,
        "EPICS_CAS_SERVER_PORT": server,
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CAS_INTF_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_PORT": beacon,
        "EPICS_CA_REPEATER_PORT": beacon,
        "EPICS_CA_MAX_ARRAY_BYTES": str(MAX_ARRAY_BYTES),
    }


def server_environment() -> dict[str, str]:
    """Low-latency settings of caproto's server; read when ``caproto.server`` is imported.

    Returns
    -------
    dict of str to str
        The stock values batch monitors for up to 1 s under load, too long where a monitor ends an exposure.
    """
    return {
        "CAPROTO_SERVER_HIGH_LOAD_TIMEOUT_SEC": "0.001",
        "CAPROTO_SERVER_MAX_LATENCY_SEC": "0.02",
        "CAPROTO_SERVER_HIGH_LOAD_WARN_LATENCY_SEC": "0",
    }


def free_port() -> int:
    """Find a port that is free for TCP and UDP on loopback, with the port above it free for beacons.

    Returns
    -------
    int
        The port. Another process may still take it before it is used; the server checks again when it binds.

    Raises
    ------
    OSError
        If no such pair was found in 100 attempts.
    """
    for _ in range(100):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.bind((LOOPBACK, 0))
            port = int(probe.getsockname()[1])
        if port <= _MAX_PORT and port_is_free(port) and port_is_free(port + 1):
            return port
    raise OSError("no free pair of ports on 127.0.0.1 in 100 attempts; close some programs or give --port")


def port_is_free(port: int) -> bool:
    """Tell whether nobody holds the port on loopback, neither for TCP nor for UDP.

    Parameters
    ----------
    port : int
        Port to probe.

    Returns
    -------
    bool
        False too if a server shares its UDP port (``SO_REUSEPORT``, as caproto does): a second one must not join it.
    """
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        ):
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a past server's TIME_WAIT does not count
            tcp.bind((LOOPBACK, port))
            tcp.listen(1)
            udp.bind((LOOPBACK, port))
    except OSError:
        return False
    return True


def require_free_port(port: int) -> None:
    """Refuse a port that somebody else uses.

    Parameters
    ----------
    port : int
        Port wanted for Channel Access.

    Raises
    ------
    PortTakenError
        A second caproto IOC would otherwise start on another TCP port without a word, and clients would see either.
    """
    if not port_is_free(port):
        raise PortTakenError(port)
