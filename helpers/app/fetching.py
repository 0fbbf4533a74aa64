"""Fetching: a picture from an address on the web, without becoming anybody's way into this network.

Whoever may name an address may try to make the service ask what only the service can reach (server-side request
forgery). So the host must be one that was configured, its name is looked up once, every address it has must be public,
and the connection goes to that very address: a name that points elsewhere a moment later (DNS rebinding) changes
nothing. Size and time are bounded, and a redirect is followed within the same host only.
"""

import asyncio
import contextlib
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import h11

from helpers.app.errors import Refused
from helpers.app.settings import Settings

_REDIRECTS = 3
_PORTS = {"http": 80, "https": 443}
_PRIVATE = "+private"


@dataclass(frozen=True)
class Host:
    """A host that may be asked: its name, one port or (None) the usual two, and whether it may be a private address."""

    name: str
    port: int | None
    private: bool

    def __str__(self) -> str:
        return self.name if self.port is None else f"{self.name}:{self.port}"


def parse_host(text: str) -> Host:
    """``name``, ``name:port``, and either with ``+private`` behind.

    Raises
    ------
    ValueError : it is none of these.
    """
    private = text.endswith(_PRIVATE)
    try:
        parts = urlsplit(f"//{text.removesuffix(_PRIVATE).strip()}")
        name, port = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"{text!r} is no host: write name or name:port ({error})") from error
    if not name or parts.path or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError(f"{text!r} is no host: write name or name:port, such as images.example.org")
    return Host(name.rstrip("."), port, private)


class Fetcher:
    """Gets pictures from the configured hosts.

    Raises
    ------
    ValueError : a configured host is none.
    """

    def __init__(self, settings: Settings):
        self.hosts = [parse_host(text) for text in settings.url_hosts]
        self._most, self._seconds = settings.max_body, settings.fetch_seconds

    async def __call__(self, url: str) -> bytes:
        """The content of an address.

        Raises
        ------
        Refused : 422, it is no address of the web; 403, its host is not configured or not public; 502, the host fails,
            sends too much or something else; 504, it takes too long.
        """
        try:
            async with asyncio.timeout(self._seconds):
                for _ in range(_REDIRECTS + 1):
                    answer, host = await self._ask(url)
                    if isinstance(answer, bytes):
                        return answer
                    url = urljoin(url, answer)
                    if not self._same(url, host):
                        raise Refused(502, "The picture's address leads on to another host.")
                raise Refused(502, "The picture's address leads on and on.")
        except TimeoutError as error:
            raise Refused(504, f"The picture's host took longer than {self._seconds:g} seconds.") from error

    def _allowed(self, url: str) -> tuple[Host, str, int, str]:
        """Host, scheme, port and target of an address, if it may be asked."""
        try:
            parts = urlsplit(url)
            name, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError as error:
            raise Refused(422, "That is no address of a picture: write https://…") from error
        plain = all(33 <= ord(letter) < 127 and letter != "\\" for letter in url)
        if parts.scheme not in _PORTS or not name or "@" in parts.netloc or not plain:
            raise Refused(422, "That is no address of a picture: write https://…, in plain letters.")
        port = _PORTS[parts.scheme] if port is None else port
        for host in self.hosts:
            if host.name == name and port == (_PORTS[parts.scheme] if host.port is None else host.port):
                target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
                return host, parts.scheme, port, target
        named = ", ".join(map(str, self.hosts))
        raise Refused(
            403,
            f"Pictures are fetched from {named} only." if named else "This service fetches no pictures by address.",
        )

    def _same(self, url: str, host: Host) -> bool:
        try:
            return self._allowed(url)[0] == host
        except Refused:
            return False

    async def _ask(self, url: str) -> tuple[bytes | str, Host]:
        """The content, or where it says to look instead."""
        host, scheme, port, target = self._allowed(url)
        address = await self._address(host, port)
        try:
            secure = {"ssl": ssl.create_default_context(), "server_hostname": host.name} if scheme == "https" else {}
            reader, writer = await asyncio.open_connection(address, port, **secure)
        except (OSError, ssl.SSLError) as error:
            raise Refused(502, f"{host} can't be reached.") from error
        try:
            return await self._read(reader, writer, host, target), host
        except (OSError, h11.RemoteProtocolError) as error:
            raise Refused(502, f"{host} broke off, or does not speak HTTP.") from error
        finally:
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _address(self, host: Host, port: int) -> str:
        """The first address of a host, if all of them may be asked."""
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(host.name, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Refused(502, f"{host.name} has no address.") from error
        addresses = [entry[4][0] for entry in found]
        if not addresses:
            raise Refused(502, f"{host.name} has no address.")
        if not host.private and not all(is_public(address) for address in addresses):
            raise Refused(403, f"{host.name} is at an address that is not public; nothing is fetched from there.")
        return addresses[0]

    async def _read(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: Host, target: str
    ) -> bytes | str:
        connection = h11.Connection(h11.CLIENT)
        headers = [
            ("Host", str(host)),
            ("User-Agent", "lookalike"),
            ("Accept", "image/*"),
            ("Accept-Encoding", "identity"),
            ("Connection", "close"),
        ]
        writer.write(connection.send(h11.Request(method="GET", target=target, headers=headers)))
        writer.write(connection.send(h11.EndOfMessage()))
        await writer.drain()
        content = bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await reader.read(65536))
            elif isinstance(event, h11.Response):
                told = {name.decode().lower(): value.decode("latin-1") for name, value in event.headers}
                if event.status_code in (301, 302, 303, 307, 308) and "location" in told:
                    return told["location"]
                if event.status_code != 200:
                    raise Refused(502, f"{host} answered with status {event.status_code}.")
                if told.get("content-encoding", "identity") != "identity":
                    raise Refused(502, f"{host} sent the picture packed, though that was not asked for.")
            elif isinstance(event, h11.Data):
                content += event.data
                if len(content) > self._most:
                    raise Refused(502, f"{host} sent more than the {self._most:,} bytes that are taken.")
            elif isinstance(event, h11.EndOfMessage):
                return bytes(content)
            elif isinstance(event, h11.ConnectionClosed):
                raise Refused(502, f"{host} broke off.")


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet; what is packed into IPv6 addresses counts, too."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in ipaddress.ip_network("64:ff9b::/96") or parsed in ipaddress.ip_network("::/96"):
            inner.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
        if any(each is not None and not is_public(str(each)) for each in inner):
            return False
    return parsed.is_global and not parsed.is_multicast
