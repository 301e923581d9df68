"""Certificates as files, made by an authority of our own."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import trustme


@dataclass
class Authority:
    """Writes certificates for localhost into a folder, and makes clients that trust them."""

    folder: Path

    def __post_init__(self) -> None:
        self._authority = trustme.CA()
        self.folder.mkdir(exist_ok=True)
        self.chain = self.folder / "server.crt"
        self.key = self.folder / "server.key"

    def issue(self, name: str = "localhost", *, not_after: datetime | None = None) -> int:
        """Write a new certificate and its key; its serial number."""
        issued = self._authority.issue_cert(name, "localhost", "127.0.0.1", not_after=not_after)
        self.chain.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        self.key.write_bytes(issued.private_key_pem.bytes())
        return self.serial_in(issued.cert_chain_pems[0].bytes())

    def client(self, *, maximum: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED) -> ssl.SSLContext:
        """What a client trusts."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.maximum_version = maximum
        self._authority.configure_trust(context)
        return context

    @staticmethod
    def serial_in(certificate: bytes) -> int:
        """The serial number of a certificate, PEM or DER."""
        from cryptography import x509  # noqa: PLC0415 (a tenth of a second that few tests need)

        load = x509.load_pem_x509_certificate if certificate.startswith(b"-----") else x509.load_der_x509_certificate
        return load(certificate).serial_number
