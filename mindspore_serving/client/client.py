"""`Client`: call one method of a servable through gRPC, as MindSpore Serving's client does."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import grpc

from mindspore_serving.client.messages import build_request, read_reply
from protocol import ms_service_pb2 as ms_service
from protocol.limits import CLIENT_MESSAGE_BYTES_MAX
from protocol.parameter_checks import check_int, check_str

_PREDICT = "/mindspore.serving.proto.MSService/Predict"


class SSLConfig:
    """Files (PEM) that a client uses for TLS; all optional.

    certificate, private_key: what the client proves itself with, only together. custom_ca: whom it
    trusts instead of the system's authorities. The files are read when a `Client` is made.
    """

    def __init__(
        self,
        certificate: str | None = None,
        private_key: str | None = None,
        custom_ca: str | None = None,
    ) -> None:
        """Raises: RuntimeError for a certificate without a key, a key alone, or a wrong type."""
        for name, path in (
            ("certificate", certificate),
            ("private_key", private_key),
            ("custom_ca", custom_ca),
        ):
            if path is not None:
                check_str(name, path)
        if (certificate is None) != (private_key is None):
            raise RuntimeError("The certificate and private_key should be passed at the same time")
        self.certificate = certificate
        self.private_key = private_key
        self.custom_ca = custom_ca


class PendingReply:
    """A request under way, as `Client.infer_async` returns it."""

    def __init__(self, future: Any) -> None:
        self._future = future

    def result(self) -> list[dict[str, Any]] | dict[str, str]:
        """Wait for the reply and return what `Client.infer` would.

        Raises: grpc.RpcError where the call itself failed; it is not turned into a dict here.
        """
        return read_reply(self._future.result())


class Client:
    """Calls `method_name` of `servable_name` on the server at `address` (`ip:port`, `unix:path`).

    version_number 0 is the newest version. There is no deadline and no retry. Messages of up to
    512 MiB are sent and received. Can be used in a `with` statement, which closes the connection.
    """

    def __init__(
        self,
        address: str,
        servable_name: str,
        method_name: str,
        version_number: int = 0,
        ssl_config: SSLConfig | None = None,
    ) -> None:
        """Raises: RuntimeError for a parameter of the wrong type, OSError for unreadable files."""
        check_str("address", address)
        check_str("servable_name", servable_name)
        check_str("method_name", method_name)
        # A bool passes for an int here, unlike elsewhere: scripts rely on it.
        version = int(version_number) if isinstance(version_number, bool) else version_number
        check_int("version_number", version, 0)
        self.address = address
        self.servable_name = servable_name
        self.method_name = method_name
        self.version_number = version
        self._channel = _open_channel(address, ssl_config)
        self._predict = self._channel.unary_unary(
            _PREDICT,
            request_serializer=ms_service.PredictRequest.SerializeToString,
            response_deserializer=ms_service.PredictReply.FromString,
        )

    def infer(self, instances: object) -> list[dict[str, Any]] | dict[str, str]:
        """Send one instance (a dict) or several (a list or tuple of dicts) and wait.

        Returns: one dict per instance, outputs by name, or `{"error": text}` where it failed; a
        single such dict when the request failed as a whole or the call did, which is printed too.
        Raises: RuntimeError or TypeError for instances that cannot be sent.
        """
        request = self._request(instances)
        try:
            reply = self._predict(request)
        except grpc.RpcError as error:
            return _report(error)
        return read_reply(reply)

    def infer_async(self, instances: object) -> PendingReply:
        """Send like `infer` and return at once; the reply is what `.result()` gives."""
        return PendingReply(self._predict.future(self._request(instances)))

    def close(self) -> None:
        """Close the connection; calls under way end with CANCELLED."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return the client itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    def _request(self, instances: object) -> ms_service.PredictRequest:
        return build_request(self.servable_name, self.method_name, self.version_number, instances)


def _open_channel(address: str, ssl_config: SSLConfig | None) -> grpc.Channel:
    options = [
        ("grpc.max_send_message_length", CLIENT_MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", CLIENT_MESSAGE_BYTES_MAX),
    ]
    if ssl_config is None:
        return grpc.insecure_channel(address, options=options)
    if not isinstance(ssl_config, SSLConfig):
        raise RuntimeError("The type of ssl_config should be type of SSLConfig")
    credentials = grpc.ssl_channel_credentials(
        _read(ssl_config.custom_ca), _read(ssl_config.private_key), _read(ssl_config.certificate)
    )
    return grpc.secure_channel(address, credentials, options=options)


def _read(path: str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def _report(error: grpc.RpcError) -> dict[str, str]:
    """Print what failed in three lines, as users know it, and give it back as one text."""
    code, details = error.code(), error.details()
    print(details)
    print(code.name)
    print(code.value)
    return {"error": f"Grpc Error, {code.value}, {details}"}
