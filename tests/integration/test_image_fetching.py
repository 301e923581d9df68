"""Images at addresses, against a real server: what is fetched, and what is not even tried."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import socket
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field

import pytest

from manent.adapters.images.fetching import ImageFetcher
from manent.adapters.images.reader import CheckedImages
from manent.adapters.network.addresses import Address, is_public
from manent.domain.errors import InvalidValue
from manent.domain.images import ImageSource
from tests.support.pictures import picture

PNG = picture()
LOOPBACK = ipaddress.ip_address("127.0.0.1")
METADATA_SERVICE = "http://169.254.169.254/latest/meta-data/"


@dataclass
class Site:
    """A site that answers by path; ``heads`` are the requests that came in."""

    port: int = 0
    heads: list[str] = field(default_factory=list)
    ended: list[asyncio.Event] = field(default_factory=list)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer; the connection ends with it."""
        ended = asyncio.Event()
        self.ended.append(ended)
        try:
            await self._answer(reader, writer)
        except ConnectionError:
            pass  # it read enough of what has no end
        finally:
            writer.close()
            ended.set()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.heads.append(head)
        path = head.split(" ")[1]
        if path.startswith("/to/"):
            writer.write(f"HTTP/1.1 302 Found\r\nlocation: {path[4:]}\r\ncontent-length: 0\r\n\r\n".encode())
        elif path == "/slow":
            await reader.read()
        elif path == "/endless":
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            for _ in range(300):
                writer.write(b"\0" * 65536)
                await writer.drain()
        elif path == "/a.png":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(PNG), PNG))
        elif path == "/a.html":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\ncontent-length: 6\r\n\r\n<html>")
        else:
            writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")


@pytest.fixture
async def site() -> AsyncGenerator[Site, None]:
    """A site on loopback."""
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site
        async with asyncio.timeout(5):
            for ended in site.ended:
                await ended.wait()


async def names(host: str, _port: int) -> list[str]:
    """A resolver: pictures.test is the site on loopback, mixed.test is that and a private address."""
    known = {
        "pictures.test": ["127.0.0.1"],
        "mixed.test": ["127.0.0.1", "10.0.0.1"],
        "169.254.169.254": ["169.254.169.254"],
        "inside.test": ["192.168.1.1"],
    }
    if host not in known:
        raise socket.gaierror(f"{host} is not known")
    return known[host]


def fetcher(*, timeout_s: float = 20.0) -> ImageFetcher:
    """One to whom the site is a public address, and nothing else."""
    return ImageFetcher("http", resolve=names, reachable=lambda address: address == LOOPBACK, timeout_s=timeout_s)


async def refusal(fetching: ImageFetcher, url: str) -> str:
    """Why an address is refused."""
    with pytest.raises(InvalidValue) as refused:
        await fetching.fetch(url, param="here")
    assert refused.value.param == "here"
    return refused.value.message


async def test_an_image_is_fetched_over_redirects(site: Site) -> None:
    """The server is asked by the name in the address, and for nothing compressed."""
    address = f"http://pictures.test:{site.port}"
    assert await fetcher().fetch(f"{address}/to//to/{address}/a.png", param="here") == PNG
    assert len(site.heads) == 3
    assert f"host: pictures.test:{site.port}\r\n" in site.heads[-1].lower()
    assert "accept-encoding: identity" in site.heads[-1].lower()


async def test_a_name_is_looked_up_once(site: Site) -> None:
    """What was judged is what is connected to, so that a name which then leads elsewhere leads nowhere."""
    asked: list[str] = []

    async def rebinding(host: str, _port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["10.0.0.1"]

    one = ImageFetcher("http", resolve=rebinding, reachable=lambda address: address == LOOPBACK)
    assert await one.fetch(f"http://pictures.test:{site.port}/a.png", param="here") == PNG
    assert asked == ["pictures.test"]


async def test_images_of_a_request_are_fetched_once_each(site: Site) -> None:
    """The same address twice is one request; what comes back is judged as what is sent in is."""
    images = CheckedImages(fetcher())
    source = ImageSource(url=f"http://pictures.test:{site.port}/a.png")
    one, other = await images.read([source, dataclasses.replace(source, text_before=1)])
    assert (one.data, one.width, other.text_before, len(site.heads)) == (PNG, 64, 1, 1)
    with pytest.raises(InvalidValue, match="no image that can be read"):
        await images.read([dataclasses.replace(source, url=f"http://pictures.test:{site.port}/a.html")])


@pytest.mark.parametrize(
    ("path", "says"),
    [
        (f"/to/{METADATA_SERVICE}", "not public"),
        ("/to/http://inside.test/", "not public"),
        ("/to/http://mixed.test/", "not public"),
        ("/to/file:///etc/passwd", "must have a plain https or http address"),
        ("/to/ftp://pictures.test/", "must have a plain https or http address"),
        ("/to/http://user:secret@pictures.test/", "must have a plain https or http address"),
        ("/to//to//to//to//to//a.png", "more than 3 redirects"),
        ("/to/http://nowhere.test/", "not known"),
        ("/nothing", "answered 404"),
        ("/endless", "more than 10000000 bytes"),
        ("/slow", "did not come within 0.5 s"),
    ],
)
async def test_what_must_not_be_fetched_is_refused(site: Site, path: str, says: str) -> None:
    """Private addresses behind redirects, other schemes, circles, and bodies without an end."""
    timeout_s = 0.5 if path == "/slow" else 20.0
    assert says in await refusal(fetcher(timeout_s=timeout_s), f"http://pictures.test:{site.port}{path}")


async def test_loopback_is_refused_by_the_real_judge(site: Site) -> None:
    """With the system's resolver and no exception, a server beside this one is never connected to."""
    real = ImageFetcher("http")
    for host in ("127.0.0.1", "localhost", "[::1]", "0", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]"):
        said = await refusal(real, f"http://{host}:{site.port}/a.png")
        assert "not public" in said or "not known" in said, host
    assert site.heads == []


async def test_addresses_are_only_fetched_where_that_is_allowed() -> None:
    """By default none is; https alone where only that is."""
    assert "this server fetches no images" in await refusal(ImageFetcher("data"), "https://example.com/a.png")
    assert "a plain https address" in await refusal(ImageFetcher("https"), "http://example.com/a.png")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.216.34", True),
        ("2606:4700::1111", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.168.0.1", False),
        ("0.0.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:0a00:0001::", False),
        ("64:ff9b::10.0.0.1", False),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", False),
    ],
)
def test_which_addresses_are_public(address: str, *, public: bool) -> None:
    """Loopback, private, shared, link-local and multicast networks are not, in whichever notation."""
    judged: Address = ipaddress.ip_address(address)
    assert is_public(judged) is public
