"""Images behind addresses in requests: fetched only from hosts that are allowed, and never from private addresses.

A name is resolved once, every address that it has must be public, and the connection goes to one of those: a name
that means another address a moment later (DNS rebinding) changes nothing. A redirect is a new address, of which all
is checked again.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import BoundedSemaphore, Timer
from time import monotonic
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

from chiasm.errors import ChiasmError, DataError, excerpt
from chiasm.serving.worker import Full

PORTS = {"http": 80, "https": 443}
REDIRECTS = 3
AT_A_TIME = 8


class Target(NamedTuple):
    """What an address names. path: with the query."""

    scheme: str
    host: str
    port: int
    path: str


def resolve(host: str, port: int) -> list[str]:
    """Every address of a host."""
    return [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def connect(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), seconds)


class Fetcher:
    """Gets images from hosts.

    hosts: `HOST`, at the usual ports, or `HOST:PORT`. most_bytes: of an image. seconds: for all of a fetch, its
    redirects included.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        *,
        most_bytes: int,
        seconds: float = 10.0,
        resolve: Callable[[str, int], list[str]] = resolve,
        connect: Callable[[str, int, float], socket.socket] = connect,
    ):
        self.hosts = frozenset(map(_allowed, hosts))
        self.most_bytes, self.seconds = most_bytes, seconds
        self._resolve, self._connect = resolve, connect
        self._slots = BoundedSemaphore(AT_A_TIME)

    def fetch(self, url: str, where: str) -> bytes:
        """What is there; raises DataError naming `where`, and Full where as many fetches are under way as may."""
        if not self._slots.acquire(blocking=False):
            raise Full(f"{where}: {AT_A_TIME} images are fetched already; try again later")
        try:
            return self._follow(url, where, monotonic() + self.seconds)
        finally:
            self._slots.release()

    def _follow(self, url: str, where: str, deadline: float) -> bytes:
        for _ in range(REDIRECTS + 1):
            target = self._target(url, where)
            data, location = self._get(target, where, deadline)
            if location is None:
                return data
            following = urljoin(url, location)
            if target.scheme == "https" and not following.lower().startswith("https:"):
                raise DataError(f"{where}: {excerpt(url)} leads away from https")
            url = following
        raise DataError(f"{where}: more than {REDIRECTS} redirects")

    def _target(self, url: str, where: str) -> Target:
        """Raises DataError for an address that may not be asked."""
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise DataError(f"{where}: {excerpt(url)} is no address") from None
        if (
            not url.isascii()
            or any(letter <= " " or letter == "\x7f" for letter in url)
            or "@" in parts.netloc
        ):
            raise DataError(f"{where}: {excerpt(url)} is no plain address of an image")
        if parts.scheme not in PORTS:
            raise DataError(f"{where}: {excerpt(url)} is neither http nor https")
        usual = PORTS[parts.scheme]
        port = usual if port is None else port
        if f"{host}:{port}" not in self.hosts and not (port == usual and host in self.hosts):
            raise DataError(
                f"{where}: nothing is fetched from {excerpt(parts.netloc)} here; send the image itself"
            )
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, host, port, path)

    def _get(self, target: Target, where: str, deadline: float) -> tuple[bytes, str | None]:
        """The bytes there, or where they are instead."""
        place = f"{target.scheme}://{target.host}"
        try:
            connection = self._connect(self._address(target, where), target.port, _rest(deadline))
        except OSError:
            raise DataError(f"{where}: {place} cannot be reached") from None
        # What trickles in resets a socket's own time limit with each byte; this one is for all of it.
        timer = Timer(_rest(deadline), lambda: _hang_up(connection))
        timer.start()
        try:
            data, location = self._read(connection, target, f"{where}: {place}")
            if monotonic() >= deadline:  # then the end is where the timer came
                raise TimeoutError
            return data, location
        except (OSError, http.client.HTTPException) as error:
            late = monotonic() >= deadline
            reason = (
                f"took longer than {self.seconds:g} seconds" if late else f"failed: {type(error).__name__}"
            )
            raise DataError(f"{where}: {place} {reason}") from None
        finally:
            timer.cancel()
            connection.close()

    def _address(self, target: Target, where: str) -> str:
        """One of the host's addresses, all of which are public."""
        try:
            addresses = self._resolve(target.host, target.port)
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise DataError(f"{where}: there is no host {excerpt(target.host)}")
        if not all(map(is_public, addresses)):
            raise DataError(f"{where}: {excerpt(target.host)} has an address that is not public")
        return addresses[0]

    def _read(self, connection: socket.socket, target: Target, where: str) -> tuple[bytes, str | None]:
        if target.scheme == "https":
            context = ssl.create_default_context()
            connection = context.wrap_socket(connection, server_hostname=target.host)
        usual = target.port == PORTS[target.scheme]
        name = f"[{target.host}]" if ":" in target.host else target.host
        asking = http.client.HTTPConnection(target.host, target.port)
        asking.sock = connection
        headers = {
            "Host": name if usual else f"{name}:{target.port}",
            "Accept": "image/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
        }
        asking.request("GET", target.path, headers=headers)
        reply = asking.getresponse()
        location = reply.getheader("location")
        if reply.status in (301, 302, 303, 307, 308) and location:
            return b"", location
        if reply.status != 200:
            raise DataError(f"{where} answered with status {reply.status}")
        if reply.getheader("content-encoding", "identity").lower() != "identity":
            raise DataError(f"{where} sends the image packed, though it was asked not to")
        data = reply.read(self.most_bytes + 1)
        if len(data) > self.most_bytes:
            raise DataError(f"{where} sends more than {self.most_bytes:,} bytes")
        if reply.length:  # of those that were announced, as many did not come
            raise http.client.IncompleteRead(data)
        return data, None


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet, also the IPv4 address that one of IPv6 may hold.

    Those that a translator makes of IPv4 addresses (64:ff9b::) count as reserved, and so are none.
    """
    own = ipaddress.ip_address(address.partition("%")[0])
    held: list[ipaddress.IPv4Address | ipaddress.IPv6Address | None] = [own]
    if isinstance(own, ipaddress.IPv6Address):
        held += [own.ipv4_mapped, own.sixtofour, *(own.teredo or ())]
    return all(
        each.is_global and not (each.is_multicast or each.is_reserved or each.is_unspecified)
        for each in held
        if each is not None
    )


def _allowed(host: str) -> str:
    """A host as it is compared; raises ChiasmError for what is none."""
    name = host.lower().rstrip(".")
    if not name or any(letter in name for letter in "/@* \t?#"):
        raise ChiasmError(f"{host!r} is no host; it must be as images.example.org, or with :PORT behind it")
    return name


def _rest(deadline: float) -> float:
    return max(deadline - monotonic(), 0.001)


def _hang_up(connection: socket.socket) -> None:
    with suppress(OSError):  # it may be over already
        connection.shutdown(socket.SHUT_RDWR)
