"""The door for clients that speak MDP: a request becomes a native one of a client of its own.

The core knows each MDP request by its `Caller`, who holds all that its reply needs; so nothing is
kept here, and what the core promises of requests holds for these, too. Pure.
"""

from __future__ import annotations

from typing import Any

from broker.core import Core
from protocol import head as heads
from protocol import mdp
from protocol.errors import RemoteProtocolError, RequestError

REFUSED = heads.pack(heads.Head(heads.REQUEST))


def receive(core: Core, address: tuple[bytes, ...], parts: list[Any], now_ns: int) -> None:
    """Take one message. address: routing id and envelope; parts: what follows, MDPC… first.

    Whatever can be answered is answered, in the client's own dialect; the rest is counted.
    """
    try:
        call = mdp.read_call(address, parts)
    except RemoteProtocolError:
        core.counters.malformed += 1
        return
    if call.service.startswith(mdp.MMI_PREFIX):
        answer = [*call.caller.prefix, _manage(core, call)]
        core.outbox.to_clients.append((address, answer))
        return
    try:
        parcel = mdp.encode_request(call)
    except RequestError as error:
        core.refuse(call.caller, REFUSED, error.reason, error.message)
        return
    core.receive_from_client(call.caller, parcel, now_ns)


def callers_of(core: Core, routing_id: bytes) -> list[mdp.Caller]:
    """Every request that one client has here. A scan, for when it turns out to be gone."""
    callers = (client for client in core._clients if isinstance(client, mdp.Caller))
    return [caller for caller in callers if caller.address[0] == routing_id]


def _manage(core: Core, call: mdp.Call) -> bytes:
    """8/MMI: whether somebody is here who answers requests for a service."""
    if call.service != mdp.MMI_SERVICE:
        return mdp.MMI_UNKNOWN
    if not call.frames or len(call.frames[0]) > heads.HEAD_BYTES_MAX:
        return mdp.MMI_NOT_FOUND
    key = mdp.service_key(bytes(call.frames[0]))
    service = core.registration.resolve(key) or core.registration.resolve_label(key)
    return mdp.MMI_FOUND if service is not None and service.takes_work else mdp.MMI_NOT_FOUND
