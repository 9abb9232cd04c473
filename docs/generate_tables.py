"""Write the tables of PROTOCOL.md that the code owns: `python docs/generate_tables.py`."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from protocol import limits, status  # noqa: E402

DOCUMENT = ROOT / "docs" / "PROTOCOL.md"


def reason_rows() -> list[str]:
    """One row per reason, in the order of the code."""
    return [
        f"| `{name}` | {reason.grpc} {status.GRPC_NAMES[reason.grpc]} | {reason.http} "
        f"| {reason.mindspore} | {'yes' if reason.retry else 'no'} | {reason.meaning} |"
        for name, reason in status.REASONS.items()
    ]


def limit_rows() -> list[str]:
    """One row per limit, with the first line of the comment above it."""
    lines = Path(limits.__file__).read_text().splitlines()
    rows, comment = [], ""
    for above, line in zip(["", *lines], lines, strict=False):
        if line.startswith("#:"):
            if not above.startswith("#:"):
                comment = ""
            comment = f"{comment} {line[2:].strip()}".strip()
        name = line.partition(" = ")[0]
        if name.isupper() and hasattr(limits, name):
            rows.append(f"| `{name}` | {getattr(limits, name):,} | {comment} |")
    return rows


def with_rows(text: str, heading: str, rows: list[str]) -> str:
    """The document with the rows of the first table behind a heading replaced."""
    lines = text.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(heading))
    first = next(at for at in range(start, len(lines)) if lines[at].startswith("|---")) + 1
    last = first
    while lines[last].startswith(("|", "<!--")):
        last += 1
    return "\n".join(lines[:first] + rows + lines[last:]) + "\n"


def generated(text: str) -> str:
    """The whole document with its generated tables."""
    text = with_rows(text, "## 7.", reason_rows())
    return with_rows(text, "## 8.", limit_rows())


if __name__ == "__main__":
    DOCUMENT.write_text(generated(DOCUMENT.read_text()))
