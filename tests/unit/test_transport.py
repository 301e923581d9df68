"""Names, origins, forwarded headers and heads: what is believed, and every trick that is not."""

from __future__ import annotations

import pytest
from sanic.exceptions import BadRequest

from manent.adapters.http.cors import Origins
from manent.adapters.http.forwarded import Origin, TrustedProxies
from manent.adapters.http.hosts import HostNames, name_of
from manent.adapters.http.strict_head import check_chunk_line, check_head
from manent.app.settings import Settings, SettingsError, load_settings

ALLOWED = ["https://app.example.com", "http://localhost:3000", "https://*.tail1234.ts.net", "app://obsidian.md"]
HEAD = b"GET / HTTP/1.1\r\nhost: localhost"


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "https://app.example.com:443",
        "HTTPS://APP.example.com",
        "http://localhost:3000",
        "https://mac-1.tail1234.ts.net",
        "app://obsidian.md",
    ],
)
def test_named_origins_are_allowed(origin: str) -> None:
    """Exactly, by pattern, in any case, with the scheme's own port or without."""
    assert Origins(ALLOWED).allows(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "*",
        "https://evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://app.example.comevil",
        "https://appxexample.com",
        "https://app.example.com/",
        "https://app.example.com@evil.example",
        "https://evil.example#https://app.example.com",
        "https://evil.example?https://app.example.com",
        "http://localhost:30000",
        "http://localhost",
        "https://tail1234.ts.net",
        "https://a.b.tail1234.ts.net",
        "https://.tail1234.ts.net",
        "https://*.tail1234.ts.net",
        "https://evil.example/.tail1234.ts.net",
        "https://evil.example\n.tail1234.ts.net",
        "https://a.tail1234.ts.net\n",
        "https://a.tail1234.ts.net.evil.example",
        "https://a.tail1234xts.net",
        "app://obsidian.md.evil",
    ],
)
def test_others_are_not_allowed(origin: str) -> None:
    """Suffixes, prefixes, other schemes and ports, null, dots that are none, and ends of lines."""
    allowed = Origins(ALLOWED, credentials=True)
    assert not allowed.allows(origin)
    assert allowed.headers(origin) == {"vary": "origin"}


def test_any_origin_is_allowed_without_credentials_only() -> None:
    """And null is no origin even then."""
    assert Origins(["*"]).allows("https://anybody.example")
    assert not Origins(["*"]).allows("null")
    with pytest.raises(ValueError, match="credentials"):
        Origins(["*"], credentials=True)
    assert Origins().headers("https://anybody.example") == {}


@pytest.mark.parametrize("wrong", ["example.com", "https://example.com/", "null", "https://", "https://a b"])
def test_what_is_no_origin_is_refused_at_the_start(wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that would never match, or match too much, is told."""
    monkeypatch.setenv("MANENT_CORS_ORIGINS", f"https://good.example,{wrong}")
    with pytest.raises(SettingsError, match="MANENT_CORS_ORIGINS"):
        load_settings()


@pytest.mark.parametrize(
    ("patterns", "answers", "refuses"),
    [
        ("localhost,::1", ["localhost", "LOCALHOST", "localhost.", "::1"], ["127.0.0.1", "localhost.evil", ""]),
        ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com", ".example.com", "a.example.com.evil"]),
        ("*", ["anything"], []),
    ],
)
def test_names_are_matched_as_a_whole(patterns: str, answers: list[str], refuses: list[str]) -> None:
    """By name, by pattern, or any."""
    names = HostNames(patterns.split(","))
    assert all(name in names for name in answers)
    assert not any(name in names for name in refuses)
    assert sorted(names) == sorted(patterns.split(","))


def test_names_are_taken_out_of_host_headers() -> None:
    """With a port or without, and with IPv6's brackets."""
    hosts = {"a:80": "a", "a": "a", "[::1]:80": "::1", "[::1]": "::1", "1.2.3.4:5": "1.2.3.4"}
    assert {host: name_of(host) for host in hosts} == hosts
    for wrong in ("exa mple", "http://a", "a/b", "*a", "a.*", "-a"):
        with pytest.raises(ValueError, match="no name of a host"):
            HostNames([wrong])


XFF, XFP, XFH, FWD = "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "forwarded"


@pytest.mark.parametrize(
    ("peer", "headers", "expected"),
    [
        # Nobody whom we trust: everything is made up.
        ("192.0.2.9", {XFF: ["1.1.1.1"], XFP: ["https"], XFH: ["evil"]}, Origin("192.0.2.9", "http", "here")),
        (None, {XFF: ["1.1.1.1"]}, Origin(None, "http", "here")),
        # One proxy, which appends.
        ("10.0.0.1", {XFF: ["192.0.2.9"]}, Origin("192.0.2.9", "http", "here")),
        ("10.0.0.1", {XFF: ["6.6.6.6, 192.0.2.9"]}, Origin("192.0.2.9", "http", "here")),
        ("10.0.0.1", {XFF: ["6.6.6.6", "192.0.2.9"]}, Origin("192.0.2.9", "http", "here")),
        ("10.0.0.1", {XFF: ["10.0.0.2, 192.0.2.9"]}, Origin("192.0.2.9", "http", "here")),
        ("::ffff:10.0.0.1", {XFF: ["192.0.2.9:4711"]}, Origin("192.0.2.9", "http", "here")),
        ("10.0.0.1", {XFF: ["[2001:db8::1]:4711"]}, Origin("2001:db8::1", "http", "here")),
        ("10.0.0.1", {XFF: ["2001:db8::1"]}, Origin("2001:db8::1", "http", "here")),
        # Two that we trust, and a client that pretends to be a third.
        ("10.0.0.1", {XFF: ["6.6.6.6, 192.0.2.9, 10.9.9.9"]}, Origin("192.0.2.9", "http", "here")),
        ("10.0.0.1", {XFF: ["10.1.1.1, 192.0.2.9, 10.9.9.9"]}, Origin("192.0.2.9", "http", "here")),
        # Everybody is ours: the first of all.
        ("10.0.0.1", {XFF: ["10.0.0.3, 10.0.0.2"]}, Origin("10.0.0.3", "http", "here")),
        # Nonsense ends the walk at the last address that is known.
        ("10.0.0.1", {XFF: ["192.0.2.9, unknown"]}, Origin("10.0.0.1", "http", "here")),
        ("10.0.0.1", {XFF: ["192.0.2.9, "]}, Origin("10.0.0.1", "http", "here")),
        ("10.0.0.1", {XFF: ["192.0.2.9, 192.0.2.7 OR 1=1"]}, Origin("10.0.0.1", "http", "here")),
        ("10.0.0.1", {XFF: ["1.1.1.1, "] * 5000}, Origin("10.0.0.1", "http", "here")),
        # Scheme and host stand at the same distance, or once for all.
        ("10.0.0.1", {XFF: ["9.9.9.9"], XFP: ["https"], XFH: ["a.example"]}, Origin("9.9.9.9", "https", "a.example")),
        ("10.0.0.1", {XFF: ["6.6.6.6, 9.9.9.9"], XFP: ["https, http"]}, Origin("9.9.9.9", "http", "here")),
        ("10.0.0.1", {XFF: ["9.9.9.9, 10.0.0.2"], XFP: ["https, http"]}, Origin("9.9.9.9", "https", "here")),
        ("10.0.0.1", {XFF: ["9.9.9.9, 10.0.0.2"], XFP: ["https"]}, Origin("9.9.9.9", "https", "here")),
        ("10.0.0.1", {XFF: ["9.9.9.9"], XFP: ["javascript"]}, Origin("9.9.9.9", "http", "here")),
        ("10.0.0.1", {XFP: ["https"]}, Origin("10.0.0.1", "https", "here")),
        # The other header is not believed.
        ("10.0.0.1", {FWD: ["for=6.6.6.6;proto=https"]}, Origin("10.0.0.1", "http", "here")),
    ],
)
def test_the_rightmost_that_is_not_trusted_is_the_client(
    peer: str | None, headers: dict[str, list[str]], expected: Origin
) -> None:
    """X-Forwarded-For, -Proto and -Host, as proxies write them and as clients forge them."""
    proxies = TrustedProxies(["10.0.0.0/8"])
    assert proxies.origin_of(peer, lambda name: headers.get(name, []), scheme="http", host="here") == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("for=192.0.2.9;proto=https;host=a.example", Origin("192.0.2.9", "https", "a.example")),
        ('For="[2001:db8::1]:4711"; Proto=HTTPS', Origin("2001:db8::1", "https", "here")),
        ('for=6.6.6.6, for="192.0.2.9:80"', Origin("192.0.2.9", "http", "here")),
        ('for=6.6.6.6;host="a,b", for=192.0.2.9', Origin("192.0.2.9", "http", "here")),
        ("for=192.0.2.9;proto=https, for=10.0.0.2;proto=http", Origin("192.0.2.9", "https", "here")),
        ("for=192.0.2.9, for=_hidden", Origin("10.0.0.1", "http", "here")),
        ("for=unknown;proto=https", Origin("10.0.0.1", "https", "here")),
        ('for="192.0.2.9', Origin("10.0.0.1", "http", "here")),
        ('host="a\\"b";for=192.0.2.9', Origin("192.0.2.9", "http", 'a"b')),
        ('"' * 15_000, Origin("10.0.0.1", "http", "here")),
        (",;=" * 5_000, Origin("10.0.0.1", "http", "here")),
    ],
)
def test_forwarded_is_read_as_the_rfc_has_it(header: str, expected: Origin) -> None:
    """RFC 7239 with its quotes and brackets; X-Forwarded-For is not believed beside it."""
    proxies = TrustedProxies(["10.0.0.0/8"], header=FWD)
    headers = {FWD: [header], XFF: ["6.6.6.6"]}
    assert proxies.origin_of("10.0.0.1", lambda name: headers.get(name, []), scheme="http", host="here") == expected


def test_a_unix_socket_is_trusted_where_it_is_named() -> None:
    """Whoever may connect to it is a proxy then."""
    headers = {XFF: ["192.0.2.9"]}
    trusting = TrustedProxies(["unix", "10.0.0.0/8"])
    found = trusting.origin_of(None, lambda name: headers.get(name, []), scheme="http", host="here")
    assert found.address == "192.0.2.9"
    for wrong in ("10.0.0.1/8", "example.com", "10.0.0.0/33"):
        with pytest.raises(ValueError, match="no address and no network"):
            TrustedProxies([wrong])


@pytest.mark.parametrize(
    "head",
    [
        HEAD,
        b"POST /v1/x?y=z%20 HTTP/1.0\r\nhost: a\r\ncontent-length: 12",
        b"GET http://localhost/v1/models HTTP/1.1\r\nHost: localhost\r\nX:",
        b"OPTIONS * HTTP/1.1\r\nhost: a",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nx-name: gr\xc3\xbc\xc3\x9fe\tthere",
    ],
)
def test_heads_that_are_heads_pass(head: bytes) -> None:
    """Origin form, absolute form, asterisk; values of any bytes that are no controls."""
    check_head(head)


@pytest.mark.parametrize(
    "head",
    [
        HEAD + b"\r\nx: a\nb: c",
        HEAD + b"\r\nx: a\rb: c",
        HEAD + b"\r\nx: a\x00b",
        HEAD + b"\r\nx: a\x7fb",
        HEAD + b"\r\nx: a\r\n folded",
        HEAD + b"\r\n folded: a",
        HEAD + b"\r\nx : a",
        HEAD + b"\r\n: a",
        HEAD + b"\r\nx\x00: a",
        HEAD + b"\r\nno colon",
        HEAD + b"\r\nhost: evil.example",
        HEAD + b"\r\nHOST: evil.example",
        HEAD + b"\r\ncontent-length: 5\r\ncontent-length: 5",
        HEAD + b"\r\ncontent-length: 5, 5",
        HEAD + b"\r\ncontent-length: +5",
        HEAD + b"\r\ncontent-length: 0x5",
        HEAD + b"\r\ncontent-length: 5_0",
        HEAD + b"\r\ncontent-length: \xd9\xa5",
        HEAD + b"\r\ncontent-length:",
        HEAD + b"\r\ncontent-length: " + b"9" * 40,
        HEAD + b"\r\ncontent-length: 5\r\ntransfer-encoding: chunked",
        HEAD + b"\r\ntransfer-encoding: chunked\r\ncontent-length: 5",
        b"GET / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked",
        b"GET  / HTTP/1.1\r\nhost: a",
        b"GET / HTTP/1.1 \r\nhost: a",
        b"GET\t/\tHTTP/1.1\r\nhost: a",
        b"GET /\xff HTTP/1.1\r\nhost: a",
        b"GET evil.example:443 HTTP/1.1\r\nhost: a",
        b"GET http://localhost HTTP/1.1\r\nhost: a",
        b"GET http://user@localhost/ HTTP/1.1\r\nhost: a",
        b"GET ftp://localhost/ HTTP/1.1\r\nhost: a",
        b"GET / HTTP/2.0\r\nhost: a",
        HEAD + b"\r\nx: " + b" " * 16_000 + b"\x00",
    ],
    ids=lambda head: repr(head)[-50:],
)
def test_heads_that_can_be_read_in_two_ways_are_refused(head: bytes) -> None:
    """Smuggling begins with a head that two programs read differently."""
    with pytest.raises(BadRequest):
        check_head(head)


def test_chunks_begin_with_hexadecimal_digits_alone() -> None:
    """``int`` would take signs, prefixes, underscores and other scripts' digits."""
    for line in (b"\r\n5", b"\r\nAbC", b'\r\n5;name="value"', b"\r\n0"):
        check_chunk_line(line)
    for line in (
        b"\r\n0x5",
        b"\r\n+5",
        b"\r\n5_0",
        b"\r\n-5",
        b"\r\n",
        b"\r\n5\n",
        b"XX5",
        b"\r\n 5",
        b"\r\n" + b"1" * 20,
    ):
        with pytest.raises(BadRequest):
            check_chunk_line(line)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"TLS_CERTIFICATE": "/x.crt"}, "go together"),
        ({"TLS_CERTIFICATE": "/x.crt", "TLS_KEY": "/x.key", "UNIX_SOCKET": "/x.sock"}, "do not go together"),
        ({"CORS_ORIGINS": "*", "CORS_CREDENTIALS": "true"}, "do not go together"),
        ({"UNIX_SOCKET_MODE": "rw"}, "octal"),
        ({"UNIX_SOCKET_MODE": "7777"}, "octal"),
        ({"HOSTS": "http://x"}, "MANENT_HOSTS"),
        ({"TRUSTED_PROXIES": "10.0.0.1/8"}, "MANENT_TRUSTED_PROXIES"),
        ({"LIMITS_PER_KEY": "rpm=5"}, "requests_per_minute"),
    ],
)
def test_settings_that_contradict_are_told(given: dict[str, str], says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting's name and what would be right; nothing of the others' values."""
    monkeypatch.setenv("MANENT_DATABASE_URL", "postgresql+asyncpg://ann:secret@db.example/manent")
    for name, value in given.items():
        monkeypatch.setenv(f"MANENT_{name}", value)
    with pytest.raises(SettingsError, match=says) as raised:
        load_settings()
    assert "secret" not in str(raised.value)


def test_settings_of_transport_have_parsed_forms() -> None:
    """Lists with white space around their items."""
    settings = Settings(cors_origins=" https://a.example , https://b.example", trusted_proxies="10.0.0.0/8, unix")
    assert settings.origins.allows("https://b.example")
    assert settings.proxies.origin_of(None, lambda _: ["9.9.9.9"], scheme="http", host="x").address == "9.9.9.9"
