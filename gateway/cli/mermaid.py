"""Drawings in Mermaid's flowchart language, which GitHub and many editors show as pictures.

Every label is quoted, and what is not plain in it is written as an entity code: Mermaid reads entities, Markdown, HTML,
icons and formulas in labels, and takes lines for statements that only look like them.
"""

from __future__ import annotations

import re
from typing import Final

from .drawing import Drawing, Edge, Node

MAX_CHARACTERS: Final = 50_000
"""Mermaid draws no longer text, as it is set up by default (maxTextSize)."""
MAX_EDGES: Final = 500
"""Nor more edges (maxEdges)."""

_SHAPES: Final = {
    "format": ("([", "])"),
    "route": ("[", "]"),
    "chain": ("[[", "]]"),
    "target": ("{{", "}}"),
    "upstream": ("(", ")"),
}
_SPECIAL: Final = re.compile(
    r"(?<=[Ww][Ww][Ww])\."  # where Markdown would make a link of an address
    r"|:(?! )"  # of a link too, an icon, or what is mended as a style
    r"|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])"  # emphasis
    r"|(?<= ) "  # HTML shows several spaces as one
    r"|(?<=direction) "  # a statement, wherever it stands in a line
    r"|[^\w :.,/\[\]{}…-]"
)
"""What may mean something within a quoted label."""
_CODE: Final = re.compile(r"\\(?=n)|\$(?=\$)|ﬂ(?=°)|¶(?=ß)|fa[a-z]?:(?=fa-)")
"""What Mermaid looks for after it has read entities: ends of lines, formulas, the marks of its own entities, icons."""
_NO_BREAK: Final = "#160;"
_JOINER: Final = "\u2060"
"""Has no width."""


def mermaid(drawing: Drawing) -> str:
    """Return the drawing as a Mermaid flowchart."""
    lines = ["flowchart LR", *map(_node, drawing.of("format")), '  subgraph routes["routes, the first match serves"]']
    lines += [f"  {_node(node)}" for node in drawing.of("route")]
    lines.append("  end")
    for kind in ("chain", "target", "upstream"):
        lines += map(_node, drawing.of(kind))
    lines += [_edge(edge) for edge in drawing.edges if not _is_long(edge)]
    ways = {f"way{at}": edge for at, edge in enumerate(filter(_is_long, drawing.edges), 1)}
    for key, edge in ways.items():
        lines += _way(key, edge)
    if ways:
        lines += ["  classDef way fill:none,stroke:none", f"  class {','.join(ways)} way"]
    if off := [node.key for node in drawing.nodes if node.off]:
        lines += ["  classDef off stroke-dasharray: 5 5", f"  class {','.join(off)} off"]
    return "\n".join(lines) + "\n"


def can_be_shown(drawing: Drawing, text: str) -> bool:
    """Whether Mermaid, as it is set up by default, draws so large a chart."""
    return len(text) <= MAX_CHARACTERS and sum(2 if _is_long(edge) else 1 for edge in drawing.edges) <= MAX_EDGES


def _node(node: Node) -> str:
    before, after = _SHAPES[node.kind]
    return f"  {node.key}{before}{_label(node.lines)}{after}"


def _edge(edge: Edge) -> str:
    arrow = "-.->" if edge.on_failure else "-->"
    said = f"|{_label(edge.lines)}|" if edge.lines else ""
    return f"  {edge.start} {arrow}{said} {edge.end}"


def _is_long(edge: Edge) -> bool:
    return len(edge.lines) > 1


def _way(key: str, edge: Edge) -> list[str]:
    """Return an edge whose words stand in a box without a border: Mermaid lets longer words on edges cover each other."""
    line, arrow = ("-.-", "-.->") if edge.on_failure else ("---", "-->")
    return [
        f"  {key}[{_label(edge.lines)}]",
        f"  {edge.start} {line} {key}",
        f"  {key} {arrow} {edge.end}",
    ]


def _label(lines: tuple[str, ...]) -> str:
    return '"' + "<br/>".join(map(_escaped, lines)) + '"'


def _escaped(text: str) -> str:
    text = _CODE.sub(lambda found: found[0] + _JOINER, text)
    return _SPECIAL.sub(lambda found: _NO_BREAK if found[0] == " " else f"#{ord(found[0])};", text)
