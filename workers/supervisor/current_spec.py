"""What to start in a slot now: what its spec says, and what has become known since. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from workers.supervisor.child import ChildSpec
from workers.supervisor.member import Member
from workers.supervisor.stop_policy import WORKER


def current_spec(spec: ChildSpec, members: Iterable[Member], log_level: int | None) -> ChildSpec:
    """The spec with what was changed: the log's level, and a broker's services with workers."""
    document = dict(spec.document)
    if log_level is not None:
        document["log_level"] = log_level
    if spec.kind != WORKER:
        document["services"] = sorted(
            {
                f"{member.spec.servable}/{member.spec.version}"
                for member in members
                if member.spec.kind == WORKER and not member.slot.is_gone
            }
        )
    return replace(spec, document=document)
