"""The table of dialects."""

from __future__ import annotations

import numpy as np

from protocol import head, ms_service, native, restful
from protocol.dialects import DIALECTS
from protocol.values import MethodSignature, RequestSpec


def test_every_dialect_of_the_head_has_its_module() -> None:
    assert set(DIALECTS) == set(head.DIALECTS)
    assert DIALECTS[head.DIALECT_NATIVE] is native
    assert DIALECTS[head.DIALECT_MS_SERVICE] is ms_service
    assert DIALECTS[head.DIALECT_RESTFUL] is restful


def test_every_dialect_answers_results_and_failures() -> None:
    method = MethodSignature("add", "m", (), ("y",))
    spec = RequestSpec("add", "m", 0)
    for dialect in DIALECTS.values():
        assert len(dialect.encode_reply(spec, method, [(np.int32(1),)])) == 1
        assert len(dialect.encode_failure(None, "failed", "text")) == 1
