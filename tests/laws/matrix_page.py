"""The matrix as tables for docs/formats.md: what becomes of every feature between any two formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from .matrix import UNSAID, Cell, answer_cells, cells
from .matrix_spelling import ALL

_INDEX: Final = re.compile(r"\[\d+\]")
_SHORT: Final = {format: f"`{format}`" for format in ALL}

HEAD: Final = """## Every feature, every format

What each format can ask for, towards a provider of every other format; and what each provider can answer, towards a caller
of every other. Towards its own format each of them is lossless. A cell says

- `lossless`: it arrives, and nothing has to be noted;
- `lost`, `emulated`, `minted`: what the ledger says of it; `kept:` before it, where the thing itself arrives and only
  something beside it is noted;
- `refused`: an error names it before anything is sent (of an answer: the caller gets an error in its place);
- `unsaid`: it is left out without an entry:
"""


def section() -> Iterator[str]:
    """Yield the lines of the section."""
    asked = cells()
    answered = [whole for whole, _ in answer_cells()]
    yield HEAD.rstrip()
    yield from (f"  - {name}: {why}" for name, why in UNSAID.items())
    yield ""
    yield "Cells that are lossless / in the ledger / refused, requests (the caller's format on the left):\n"
    yield from _summary(asked)
    yield "\nThe same of answers (the provider's format on the left), with those unsaid at the end:\n"
    yield from _summary(answered)
    for format in ALL:
        yield f"\n### What `{format}` can ask for\n"
        yield from _table(format, asked, with_paths=True)
    for format in ALL:
        yield f"\n### What `{format}` can answer\n"
        yield from _table(format, answered, with_paths=False)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(words: Sequence[str]) -> Iterator[str]:
    yield _row(words)
    yield "|" + "---|" * len(words)


def _summary(found: Sequence[Cell]) -> Iterator[str]:
    counts = Counter((cell.here, cell.there, cell.verdict) for cell in found)
    yield from _head(["from, to", *_SHORT.values()])
    for here in ALL:
        row = [_SHORT[here]]
        for there in ALL:
            told = [str(counts[here, there, verdict]) for verdict in ("lossless", "ledgered", "refused")]
            unsaid = counts[here, there, "unsaid"]
            row.append(" / ".join([*told, str(unsaid)] if unsaid else told))
        yield _row(row)


def _table(here: str, found: Sequence[Cell], *, with_paths: bool) -> Iterator[str]:
    others = [format for format in ALL if format != here]
    yield from _head(["feature", *(_SHORT[format] for format in others), *(["named as"] if with_paths else [])])
    rows: dict[str, dict[str, Cell]] = {}
    for cell in found:
        if cell.here == here:
            rows.setdefault(cell.feature, {})[cell.there] = cell
    for feature, row in rows.items():
        paths = dict.fromkeys(path for there in others for path in _paths(row[there]))
        told = [", ".join(f"`{path}`" for path in paths) or "-"] if with_paths else []
        yield _row([feature, *(_word(row[there]) for there in others), *told])


def _paths(cell: Cell) -> Iterator[str]:
    """Where the ledger or the error says it is, in the caller's words and without numbers."""
    for path in (cell.path, *(loss.path for loss in cell.losses)):
        if path:
            yield _INDEX.sub("[]", path)


def _word(cell: Cell) -> str:
    if cell.verdict != "ledgered":
        return cell.verdict
    kinds = ", ".join(dict.fromkeys(loss.kind for loss in cell.losses))
    return f"kept: {kinds}" if cell.held else kinds
