"""An ASGI application that gives back what it gets, with the trailers of gRPC where they belong."""


async def app(scope, receive, send):
    """Echo one request."""
    if scope["type"] != "http":
        return
    body = b""
    is_more = True
    while is_more:
        message = await receive()
        body += message.get("body", b"")
        is_more = message.get("more_body", False)
    kinds = [value for name, value in scope["headers"] if name == b"content-type"]
    is_grpc = kinds == [b"application/grpc"]
    headers = [(b"content-type", kinds[0] if kinds else b"application/json")]
    await send(
        {"type": "http.response.start", "status": 200, "headers": headers, "trailers": is_grpc}
    )
    await send({"type": "http.response.body", "body": body})
    if is_grpc:
        await send({"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]})
