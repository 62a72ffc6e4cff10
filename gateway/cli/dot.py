"""Drawings in DOT, the language of Graphviz."""

from __future__ import annotations

from typing import Final

from .drawing import Drawing, Edge, Node

_SHAPES: Final = {
    "format": "shape=box, style=rounded",
    "route": "shape=box",
    "chain": "shape=component",
    "target": "shape=hexagon",
    "upstream": "shape=box, style=rounded",
}
_DASHED: Final = {"shape=box, style=rounded": 'shape=box, style="rounded,dashed"'}


def dot(drawing: Drawing) -> str:
    """Return the drawing as a DOT digraph."""
    lines = [
        "digraph headgate {",
        "  rankdir=LR",
        '  node [fontname="sans-serif", fontsize=11]',
        '  edge [fontname="sans-serif", fontsize=9]',
        *map(_node, drawing.of("format")),
        "  subgraph cluster_routes {",
        f"    label={_label(('routes, the first match serves',))}",
        '    fontname="sans-serif"',
    ]
    routes = drawing.of("route")
    lines += [f"  {_node(node)}" for node in routes]
    if len(routes) > 1:  # edges that only keep the order
        lines.append(f"    {{ rank=same; {' -> '.join(node.key for node in routes)} [style=invis] }}")
    lines.append("  }")
    for kind in ("chain", "target", "upstream"):
        lines += map(_node, drawing.of(kind))
    lines += map(_edge, drawing.edges)
    return "\n".join([*lines, "}"]) + "\n"


def _node(node: Node) -> str:
    look = _SHAPES[node.kind]
    if node.off:
        look = _DASHED.get(look, f"{look}, style=dashed")
    return f"  {node.key} [label={_label(node.lines)}, {look}]"


def _edge(edge: Edge) -> str:
    looks = ([f"label={_label(edge.lines)}"] if edge.lines else []) + (["style=dotted"] if edge.on_failure else [])
    said = f" [{', '.join(looks)}]" if looks else ""
    return f"  {edge.start} -> {edge.end}{said}"


def _label(lines: tuple[str, ...]) -> str:
    return '"' + "\\n".join(map(_escaped, lines)) + '"'


def _escaped(text: str) -> str:
    """Return a text as a label says it: a backslash and an ampersand would begin a code of Graphviz's."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
