"""What is compiled: the pure machines of the hot path.

Shells stay as they are: their time is the event loop's and ZeroMQ's. So do modules of constants and
NamedTuples (their values are compiled into who uses them), generated code, and whatever mypyc
cannot take; docs/decisions/0018-compiled-hot-path.md has the figures.
"""

from __future__ import annotations

_BROKER = """
    admission book core deadlines dispatcher keys lane outbox priorities quarantine registration
    links service split stats switch unread watchers
"""

_PROTOCOL = """
    binary_layout client_session head json_layout layout layouts link link_socket ms_service native
    oip oip_json oip_parameters oip_results oip_scans oip_tensor packed restful_json restful_reply
    restful_request restful_target restful_timeout tensor trace_context varint worker_session
"""

_GATEWAY = """
    exchange forward grpc_calls grpc_connection h2_blocks h2_call h2_calls h2_connection
    h2_farewell h2_frames h2_headers h2_patience h2_replies http_arriving http_connection
    http_forward http_known http_messages http_replies http_service journal model_directory models
    ms_service_handler numbers oip_forward oip_rest_forward oip_rest_target requests stall_watch
"""

_STAGES = """
    checked_model executor function_stage model_runner model_slots remote_model request_desk rows
    scheduler stage_values tally
"""

#: Full names, in one order.
MODULES = tuple(
    f"{room}.{name}"
    for room, names in (
        ("broker", _BROKER),
        ("gateway", _GATEWAY),
        ("protocol", _PROTOCOL),
        ("workers.stages", _STAGES),
        ("mindbus", "embedded_bus"),
    )
    for name in names.split()
)
