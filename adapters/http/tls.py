"""TLS with a certificate that may change under way: new connections get the new one, those that stand go on."""

from __future__ import annotations

import asyncio
import logging
import ssl
from pathlib import Path

POLL_S = 5.0

_log = logging.getLogger("manent.tls")


class CertificateUnusable(Exception):
    """The certificate or its key cannot be used; the message says which file and why."""


class Certificate:
    """A certificate chain and its key, in two files, looked at again and again.

    What is there at a look and cannot be used (half of it was written, the key is another's) is logged once, and the
    certificate before stays in use.
    """

    def __init__(self, chain: Path, key: Path) -> None:
        """Read both.

        Raises:
            CertificateUnusable: that failed.
        """
        self._chain = chain
        self._key = key
        self._seen = self._marks()
        self.context = self._current = self._loaded()
        # Called for every handshake, with a server's name in it or not, before a certificate is chosen.
        self.context.sni_callback = self._use_current

    async def watch(self, every_s: float = POLL_S) -> None:
        """Look for another certificate every ``every_s``; runs as long as the server does."""
        while True:
            await asyncio.sleep(every_s)
            await asyncio.to_thread(self.look)

    def look(self) -> bool:
        """Take the certificate that is there now, if it is another one; whether it was taken."""
        marks = self._marks()
        if marks == self._seen:
            return False
        self._seen = marks
        try:
            self._current = self._loaded()
        except CertificateUnusable as error:
            _log.error("the certificate before stays in use: %s", error)
            return False
        _log.info("new connections get the certificate that is in %s now", self._chain)
        return True

    def _use_current(self, connection: ssl.SSLSocket | ssl.SSLObject, _name: str | None, _context: object) -> None:
        connection.context = self._current

    def _marks(self) -> list[tuple[int, int, int] | None]:
        """What changes when a file does, also when another takes its place; None where it cannot be looked at."""
        marks: list[tuple[int, int, int] | None] = []
        for path in (self._chain, self._key):
            try:
                found = path.stat()
            except OSError:
                marks.append(None)
            else:
                marks.append((found.st_mtime_ns, found.st_size, found.st_ino))
        return marks

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        try:
            # Without a password, a key that needs one is refused; the terminal would be asked otherwise.
            context.load_cert_chain(self._chain, self._key, password="")
        except ssl.SSLError as error:
            reason = error.reason or str(error)
            raise CertificateUnusable(f"{self._chain} and {self._key} do not make a certificate: {reason}") from None
        except OSError as error:
            raise CertificateUnusable(f"{error.filename or self._key}: {error.strerror}") from None
        return context
