"""TLS of the doors: which files, and what each door makes of them."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.rare_warning import RareWarning

#: What MindSpore Serving's RESTful door offers under TLS 1.2. Its PSK cipher is left out: nobody
#: can set a pre-shared key. TLS 1.3 keeps the library's own list.
REST_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
        "ECDHE-ECDSA-AES128-CCM",
        "ECDHE-ECDSA-AES256-CCM",
    )
)


class TlsError(Exception):
    """Key material that a door cannot use; the text is MindSpore Serving's own."""


@dataclass(frozen=True)
class TlsSettings:
    """Paths of PEM files.

    certificate: the server's chain. private_key: of its first certificate, not encrypted.
    custom_ca: roots that client certificates are verified against. verify_client: whether a client
    must have a certificate; needs `custom_ca`.
    """

    certificate: str
    private_key: str
    custom_ca: str | None = None
    verify_client: bool = False

    def __post_init__(self) -> None:
        assert self.custom_ca or not self.verify_client, "verify_client needs custom_ca"

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> TlsSettings | None:
        """Settings from a JSON object with the four keys; None stays None (no TLS)."""
        if document is None:
            return None
        return cls(
            document["certificate"],
            document["private_key"],
            document.get("custom_ca"),
            bool(document.get("verify_client", False)),
        )


def grpc_context(tls: TlsSettings) -> ssl.SSLContext:
    """The TLS context of the gRPC door: TLS 1.2 or later, and HTTP/2.

    Client certificates are verified against `custom_ca` only. Raises: OSError naming the file that
    cannot be read; TlsError for one that cannot be used.
    """
    for path in (tls.private_key, tls.certificate, tls.custom_ca):
        if path:
            Path(path).read_bytes()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.sslobject_class = _handshake_class()
    context.set_alpn_protocols(["h2"])
    try:
        context.load_cert_chain(tls.certificate, tls.private_key, password=lambda: "")
        if tls.custom_ca:
            context.load_verify_locations(tls.custom_ca)
    except (OSError, ValueError) as error:
        raise TlsError(str(error)) from None
    if tls.verify_client:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def rest_context(tls: TlsSettings) -> ssl.SSLContext:
    """The TLS context of the RESTful door: TLS 1.2 or later.

    Client certificates are verified against `custom_ca` only. MindSpore Serving adds the system's
    roots, so that a certificate of any public authority would open a door meant for a few. It also
    allows one curve only, prime256v1; here it is one of those that the library allows.
    Raises: TlsError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(REST_CIPHERS)
    context.sslobject_class = _handshake_class()
    if tls.verify_client:
        assert tls.custom_ca is not None
        try:
            context.load_verify_locations(tls.custom_ca)
        except (OSError, ValueError):
            raise TlsError(
                f"Serving Error: load root certificate from {tls.custom_ca} failed"
            ) from None
        context.verify_mode = ssl.CERT_REQUIRED
    if not _has_certificates(tls.certificate):
        raise TlsError(f"Serving Error: load certificate_chain from {tls.certificate} failed")
    try:
        # An encrypted key would ask for its password at the terminal: an empty one fails instead.
        context.load_cert_chain(tls.certificate, tls.private_key, password=lambda: "")
    except (OSError, ValueError) as error:
        if isinstance(error, ssl.SSLError) and error.reason == "NO_CERTIFICATE_ASSIGNED":
            # The key is of another kind than the certificate's; another key of its kind is
            # refused already when it is loaded.
            text = f"private_key is not consistent with certificate {tls.certificate}"
        else:
            text = f"load private_key from {tls.private_key} failed"
        raise TlsError(f"Serving Error: {text}") from None
    return context


def _handshake_class() -> type[ssl.SSLObject]:
    """What a connection of one door is handshaken with: failures are said in the log.

    A client that speaks plain HTTP, trusts another authority or has no certificate is told little
    or nothing by TLS, and the event loop says nothing at all.
    """
    warn = RareWarning("TLS handshake failed")

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            """Go on as far as what has come allows; the event loop calls it again."""
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError as error:
                warn(reason=str(error))
                raise

    return Handshake


def _has_certificates(path: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except (OSError, ValueError):
        return False
    return True
