"""Draw a result: for each case a bar per transport, as long as its ratio to raw. The same result gives the same bytes.

python -m bench.plot [RESULT [SVG]]      (default: the newest of bench/results, docs/performance.svg)
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.sax.saxutils import escape

from .result import Figures, Result, Row, System, read
from .servers import HERE

PICTURE = HERE.parent / "docs/performance.svg"
COLOURS: dict[System, str] = {"lean": "#1f6f8b", "aiohttp": "#e0a458"}
LEFT, RIGHT, WIDTH = 330, 740, 960
"""Where bars begin, where the longest may end, and the whole picture, in pixels; after RIGHT stands what is said in words."""
HEAD, BAR, ROW, GROUP = 92, 9, 28, 10
"""Height of the heading, of a bar, of a row, and of the gap before another load."""
PER = {"request": "CPU per request", "chunk": "CPU per chunk", "first": "time to the first chunk"}
DIGITS = "font-size: 10px; stroke: #ffffff; stroke-width: 3px; paint-order: stroke"
FONT = "font-family: system-ui, 'DejaVu Sans', sans-serif; font-size: 12px"


def draw(result: Result) -> str:
    """Return the SVG of ``result``."""
    ratios = [figures.ratio_high for row in result.rows for figures in row.systems.values()]
    longest = math.ceil(max(ratios, default=1.0) * 2 + 0.1) / 2
    scale = (RIGHT - LEFT) / longest
    body: list[str] = []
    y = HEAD
    group = ("", "")
    for row in result.rows:
        begins = (row.load, row.provider) != group
        if begins:
            y += GROUP
        body += draw_row(row, y, scale, named=begins)
        group = (row.load, row.provider)
        y += ROW
    return "\n".join([*heading(result, y), *axis(longest, scale, y), *body, "</svg>", ""])


def heading(result: Result, height: int) -> Iterator[str]:
    """Yield what opens the picture: what it shows, where it was measured, what the colours mean."""
    machine, versions = result.machine, result.versions
    names = [name for name in COLOURS if any(name in row.systems for row in result.rows)]
    about = (
        f"{result.date[:10]}, {machine.cpu}, {machine.cores} cores, load {machine.load_before[0]:.1f} before the run; "
        f"median of {result.rounds} rounds of {result.seconds:g} s, lines: lowest to highest"
    )
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height + 34}" width="{WIDTH}" '
        f'height="{height + 34}" role="img" style="{FONT}">'
    )
    yield "<title>What a call through Headgate costs, as a ratio to a bare aiohttp proxy</title>"
    yield f'<rect width="{WIDTH}" height="{height + 34}" fill="#ffffff"/>'
    yield words(16, 24, "What a call through Headgate costs, as a ratio to a bare aiohttp proxy", "font-weight: 600")
    yield words(16, 42, about, "fill: #555555")
    yield words(16, 58, ", ".join(f"{name} {version}" for name, version in versions.items()), "fill: #555555")
    for at, name in enumerate(names):
        x = LEFT + at * 170
        yield f'<rect x="{x}" y="66" width="10" height="10" fill="{COLOURS[name]}"/>'
        yield words(x + 16, 75, f"transport: {name}", "fill: #333333")
    yield words(RIGHT + 40, 75, " / ".join(["raw", *names]), "font-size: 10px; fill: #555555")


def axis(longest: float, scale: float, bottom: int) -> Iterator[str]:
    """Yield the scale, a line each half, that of raw heavier."""
    for half in range(int(longest * 2) + 1):
        x = LEFT + half / 2 * scale
        raw = half == 2
        style = 'stroke="#aa3333" stroke-width="1.5"' if raw else 'stroke="#dddddd"'
        yield f'<line x1="{x:.1f}" y1="{HEAD - 6}" x2="{x:.1f}" y2="{bottom + 6}" {style}/>'
        yield words(x, bottom + 22, f"{half / 2:.1f}" + (" = raw" if raw else ""), "text-anchor: middle; fill: #555555")


def draw_row(row: Row, y: int, scale: float, *, named: bool) -> Iterator[str]:
    """Yield one case; the load's name only with the first of its cases."""
    shown = [(name, row.systems[name]) for name in COLOURS if name in row.systems]
    name = f"{row.load}, TLS" if row.provider == "https" else row.load
    said = ", ".join(f"{system} {figures.ratio:.2f}" for system, figures in shown)
    yield f'<g class="row"><title>{escape(f"{name}; {row.chain}; {PER[row.per]}: {said}")}</title>'
    if named:
        yield words(16, y + 14, name, "font-weight: 600")
    yield words(LEFT - 8, y + 14, row.chain, "text-anchor: end; font-size: 11px; fill: #333333")
    for at, (system, figures) in enumerate(shown):
        yield from bar(system, figures, y + 2 + at * (BAR + 2), scale)
    yield words(RIGHT + 40, y + 14, beside(row), "font-size: 10px; fill: #555555")
    yield "</g>"


def bar(system: System, figures: Figures, y: int, scale: float) -> Iterator[str]:
    """Yield the bar of one system, its spread, and its value in digits."""
    low, high, end = (LEFT + value * scale for value in (figures.ratio_low, figures.ratio_high, figures.ratio))
    middle = y + BAR / 2
    yield f'<rect x="{LEFT}" y="{y}" width="{end - LEFT:.1f}" height="{BAR}" fill="{COLOURS[system]}"/>'
    yield f'<line x1="{low:.1f}" y1="{middle}" x2="{high:.1f}" y2="{middle}" stroke="#333333"/>'
    yield words(max(end, high) + 4, y + BAR - 1, f"{figures.ratio:.2f}", DIGITS)


def beside(row: Row) -> str:
    """Return what the ratios do not say: what raw took, or how late the chunks of a paced stream were."""
    found = [row.systems[name] for name in ("raw", "lean", "aiohttp") if name in row.systems]
    if row.systems["raw"].pace_held is not None:
        return "late, p99: " + " / ".join(f"{figures.p99_ms:.3g}" for figures in found) + " ms"
    return f"raw: {row.systems['raw'].us:.{0 if row.per == 'request' else 1}f} µs"


def words(x: float, y: float, text: str, style: str = "") -> str:
    """Return a text."""
    return f'<text x="{x:.1f}" y="{y}" style="{style}">{escape(text)}</text>'


def main() -> None:
    """Draw one result."""
    named = sys.argv[1:]
    kept = sorted((HERE / "results").glob("*.json"))
    if not named and not kept:
        raise SystemExit("no result is kept in bench/results: make bench makes one")
    source = Path(named[0]) if named else kept[-1]
    picture = Path(named[1]) if len(named) > 1 else PICTURE
    picture.write_text(draw(read(source)))
    print(f"{picture} shows {source}")


if __name__ == "__main__":
    main()
