"""The table of dialects."""

from __future__ import annotations

import numpy as np

from protocol import head, ms_service, native, oip, oip_json, restful
from protocol.dialects import DIALECTS
from protocol.oip_parameters import Echo
from protocol.values import MethodSignature, RequestSpec


def test_every_dialect_of_the_head_has_its_module() -> None:
    assert set(DIALECTS) == set(head.DIALECTS)
    assert DIALECTS[head.DIALECT_NATIVE] is native
    assert DIALECTS[head.DIALECT_MS_SERVICE] is ms_service
    assert DIALECTS[head.DIALECT_RESTFUL] is restful
    assert DIALECTS[head.DIALECT_OIP] is oip
    assert DIALECTS[head.DIALECT_OIP_JSON] is oip_json


def test_every_dialect_answers_results_and_failures() -> None:
    method = MethodSignature("add", "m", (), ("y",))
    spec = RequestSpec("add", "m", 0, Echo("add", "", None))
    for dialect in DIALECTS.values():
        assert dialect.encode_reply(spec, method, [(np.array(1, np.int32),)])
        assert len(dialect.encode_failure(None, "failed", "text")) == 1
