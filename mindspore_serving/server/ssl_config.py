"""`SSLConfig` of the server: the files with which a door speaks TLS."""

from __future__ import annotations

from protocol.parameter_checks import check_bool, check_str


class SSLConfig:
    """Paths of PEM files; they are read when a door opens.

    certificate, private_key: what the server proves itself with. verify_client: demand a
    certificate of every client, verified against `custom_ca`, which then must be given.
    """

    def __init__(
        self,
        certificate: str,
        private_key: str,
        custom_ca: str | None = None,
        verify_client: bool = False,
    ) -> None:
        """Raises: RuntimeError for a parameter of the wrong type, or an empty path."""
        self.certificate = check_str("certificate", certificate)
        self.private_key = check_str("private_key", private_key)
        self.verify_client = check_bool("verify_client", verify_client)
        if self.verify_client:
            check_str("custom_ca", custom_ca)
        self.custom_ca = custom_ca
