"""``when:``, a CEL expression over the facts of a request, for what ``match`` cannot say.

The library is cel-expr-python, Google's own: it checks names and types when a file is loaded, and bounds depth and iterations.
An expression answers yes, no, or nothing at all, as when it looks into a text that is not there. No answer is no match.
"""

from __future__ import annotations

import importlib
import logging
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any, Final

from msgspec import Struct

from ..facts import WireFacts
from .cel_text import GROUPS, MACROS, Group, Token, WhenFault, Wording, read_text, variable_name
from .document import Node, Scalar, kind_of
from .match import Matcher
from .problems import Problems, nearest

__all__ = ["NoCel", "When", "WhenFault", "compile_when", "narrowed", "read_when"]

_log: Final = logging.getLogger("headgate.rules")

MAX_VALUES: Final = 1000
MAX_DEPTH: Final = 16
"""Of a value in the caller's metadata. The library copies a value whole, and a very deep one would end the process."""

_TYPES: Final = {
    "format": "STRING",
    "model": "STRING",
    "path": "STRING",
    "request.tokens": "INT",
    "request.stream": "BOOL",
    "request.tools": "BOOL",
    "request.has_image": "BOOL",
}
_PRINCIPAL_TYPES: Final = {
    "principal.key": "STRING",
    "principal.team": "nullable",
    "principal.tenant": "STRING",
    "principal.tags": "list",
}
_FUNCTIONS: Final = (
    *MACROS,
    *("has", "size", "startsWith", "endsWith", "contains", "matches", "type", "dyn"),
    *("int", "uint", "double", "string", "bool", "bytes", "duration", "timestamp"),
)
_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): (.*)")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD: Final = re.compile(r"found no matching overload for '([^']*)' applied to '(.*)'")
_UNEXPECTED: Final = re.compile(r"(?:mismatched input|extraneous input|token recognition error at:) '(.*)'")
_DASHED: Final = re.compile(r"\b(header|query|metadata)\.([A-Za-z_][\w-]*-)\Z", re.ASCII)
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"")
_OPERATORS: Final = {"_[_]": "[ ]", "_?_:_": "? :", "!_": "!", "-_": "-", "@in": "in"}


class NoCel(Exception):
    """The extra ``cel`` is not installed."""


class _TooLarge(ValueError):
    """A value of the caller's metadata that is not shown to an expression."""


class When(Struct, frozen=True, eq=False):
    """A condition as the file spells it, and compiled."""

    text: str
    holds: Matcher


def read_when(node: Node, where: str, problems: Problems, *, principal: bool = False) -> When | None:
    """Return the condition that ``node`` spells; None when something is wrong with it (and noted).

    ``principal`` says that it is asked after auth, when it is known who calls.
    """
    if not isinstance(node, Scalar) or not isinstance(node.value, str) or not node.value.strip():
        said = "an empty text" if isinstance(node, Scalar) and node.value == "" else kind_of(node)
        hint = "such as 'request.tokens > 1000 || request.has_image'"
        problems.add("E011", node.spot, f"{where}: expected a CEL expression, got {said}", hint)
        return None
    text = node.value
    try:
        return When(text, compile_when(text, principal=principal))
    except NoCel:
        problems.add("E048", node.spot, f"{where} needs the extra cel", 'pip install "headgate[cel]", or use match')
    except WhenFault as fault:
        before = text[: fault.offset]
        spot = node.at(before.count("\n") + 1, fault.offset - before.rfind("\n"))
        problems.add(fault.code, spot, f"{where}: {fault}", fault.hint)
    return None


def narrowed(matches: Matcher, when: When | None) -> Matcher:
    """Return a test that ``matches`` and ``when`` hold; the cheaper is asked first."""
    if when is None:
        return matches
    holds = when.holds
    return lambda facts: matches(facts) and holds(facts)


def compile_when(text: str, *, principal: bool) -> Matcher:
    """Return the test that ``text`` spells. Raises NoCel, or WhenFault with the place of what is wrong."""
    _library()
    wording = read_text(text)
    groups = [group for group, _ in wording.keys.values()]
    shape = principal, sum(group != "metadata" for group in groups), groups.count("metadata")
    checked = _compile(_environment(*shape, strict=True), wording.text, text, principal)
    kind = checked.return_type().name()
    if kind not in ("BOOL", "DYN"):
        raise WhenFault("E049", f"this is {_a(kind)}, neither true nor false", 'compare it, such as with == "…"')
    for pattern in wording.patterns:
        _check_pattern(_environment(*shape, strict=True), pattern)
    # a bare value of the metadata may be anything: only true is true
    final = wording.text if kind == "BOOL" else f"({wording.text}\n) == true"
    program = _compile(_environment(*shape, strict=False), final, text, principal)
    return _test(program.eval, tuple(_readers(wording, principal).items()), text)


def _library() -> Any:
    try:
        return importlib.import_module("cel_expr_python.cel")
    except ImportError as fault:
        raise NoCel from fault


@lru_cache(maxsize=64)
def _environment(principal: bool, texts: int, values: int, *, strict: bool) -> Any:
    """Return where names have types. ``texts`` and ``values`` count the variables in place of keys.

    What may be null is a text to the checker, so that it finds ``header["x"] > 3``, and of any type at work: the library
    takes None for no text.
    """
    cel = _library()
    kind = cel.Type
    nullable = kind("google.protobuf.StringValue") if strict else kind.DYN
    types = {
        "STRING": kind.STRING,
        "INT": kind.INT,
        "BOOL": kind.BOOL,
        "nullable": nullable,
        "list": kind.List(kind.STRING),
    }
    names = {**_TYPES, **_PRINCIPAL_TYPES} if principal else _TYPES
    variables = {name: types[spelled] for name, spelled in names.items()}
    variables |= {"header": kind.Map(kind.STRING, kind.STRING), "query": kind.Map(kind.STRING, kind.STRING)}
    variables["metadata"] = kind.Map(kind.STRING, kind.DYN)
    variables |= {variable_name("header", number): nullable for number in range(1, texts + 1)}
    variables |= {variable_name("metadata", number): kind.DYN for number in range(1, values + 1)}
    return cel.NewEnv(variables=variables)


def _compile(environment: Any, wording: str, text: str, principal: bool) -> Any:
    try:
        return environment.compile(wording)
    except RuntimeError as fault:
        raise _fault(str(fault), text, principal) from fault


def _check_pattern(environment: Any, pattern: Token) -> None:
    said = environment.compile(f'"".matches({pattern.text})').eval(data={}).plain_value()
    if not isinstance(said, bool):
        reason = str(said).partition("expression: ")[2] or str(said)
        raise WhenFault("E044", f"malformed regex: {reason}", "the syntax is RE2's", pattern.start)


def _test(
    evaluate: Callable[..., Any], readers: tuple[tuple[str, Callable[[WireFacts], object]], ...], text: str
) -> Matcher:
    told = False

    def holds(facts: WireFacts) -> bool:
        nonlocal told
        try:
            answer = evaluate(data={name: read(facts) for name, read in readers}).plain_value()
        except (RuntimeError, _TooLarge) as fault:
            answer = str(fault)
        if answer is True or answer is False:
            return answer
        if not told:
            told = True
            reason = _QUOTED.sub("…", str(answer))  # what is quoted may be the caller's
            _log.warning("no answer, so no match, for a request from when: %s (%s); told once", text, reason)
        return False

    return holds


def _readers(wording: Wording, principal: bool) -> dict[str, Callable[[WireFacts], object]]:
    """Return how to read each variable that the expression asks for."""
    known = {**_READERS, **(_PRINCIPAL_READERS if principal else {})}
    readers = {name: read for name, read in known.items() if name in wording.names}
    return readers | {variable: _one(group, key) for variable, (group, key) in wording.keys.items()}


def _one(group: Group, key: str) -> Callable[[WireFacts], object]:
    if group == "header":
        return lambda facts: _clean(facts.headers.get(key))
    if group == "query":
        return lambda facts: _clean(facts.query.get(key))
    return lambda facts: _bounded(facts.metadata.get(key))


def _clean(text: str | None) -> str | None:
    """Return a text that can be encoded: bytes of a header that are no UTF-8 come as half characters."""
    return text if text is None or text.isascii() else text.encode("utf-8", "replace").decode()


def _all_clean(texts: Mapping[str, str]) -> dict[str | None, str | None]:
    return {_clean(key): _clean(value) for key, value in texts.items()}


def _bounded(value: object) -> object:
    """Return the value, unless it is too large or too deep to be shown. Raises _TooLarge."""
    level: list[object] = [value]
    count = 0
    for _ in range(MAX_DEPTH):
        level = [inner for each in level if isinstance(each, dict | list) for inner in _members(each)]
        count += len(level)
        if not level:
            return value
        if count > MAX_VALUES:
            break
    raise _TooLarge(f"more than {MAX_VALUES} values, or {MAX_DEPTH} levels, of metadata")


def _members(value: dict[str, object] | list[object]) -> list[object]:
    if len(value) > MAX_VALUES:
        raise _TooLarge(f"more than {MAX_VALUES} values of metadata")
    return list(value.values()) if isinstance(value, dict) else value


_READERS: Final[dict[str, Callable[[WireFacts], object]]] = {
    "format": attrgetter("format"),
    "model": lambda facts: _clean(facts.model),
    "path": lambda facts: _clean(facts.path),
    "request.tokens": attrgetter("tokens"),
    "request.stream": attrgetter("stream"),
    "request.tools": attrgetter("tools"),
    "request.has_image": attrgetter("has_image"),
    "header": lambda facts: _all_clean(facts.headers),
    "query": lambda facts: _all_clean(facts.query),
    "metadata": lambda facts: _bounded(facts.metadata),
}
_PRINCIPAL_READERS: Final[dict[str, Callable[[WireFacts], object]]] = {
    "principal.key": attrgetter("principal.key"),
    "principal.team": attrgetter("principal.team"),
    "principal.tenant": attrgetter("principal.tenant"),
    "principal.tags": lambda facts: list(facts.principal.tags),
}


def _fault(said: str, text: str, principal: bool) -> WhenFault:
    """Return what the library says of an expression, in our words and with its place in ``text``."""
    found = _ERROR.search(said)
    if found is None or int(found[1]) < 1 or "recursion" in found[3]:
        if "recursion" in said:
            return WhenFault("E047", "nested too deeply", "join with && and ||, ask for one of many with in [..]")
        return WhenFault("E047", said.partition(" [")[0])
    lines = text.split("\n")
    line, column, message = int(found[1]), int(found[2]), found[3]
    offset = min(sum(len(each) + 1 for each in lines[: line - 1]) + column - 1, len(text))
    if undeclared := _UNDECLARED.match(message):
        return _unknown(undeclared[1], text, offset, principal)
    if overload := _OVERLOAD.match(message):
        return _misfit(overload[1], overload[2], offset)
    if "operand of a select" in message:
        return WhenFault("E049", "only a mapping has members", 'one is asked by name: header["user-agent"]', offset)
    if "argument must be a field selection" in message:
        hint = 'such as has(metadata.team), or "team" in metadata'
        return WhenFault("E047", "has() takes a name after a dot", hint, offset)
    return _malformed(message, text, offset)


def _malformed(message: str, text: str, offset: int) -> WhenFault:
    hint = "CEL compares with == and joins with && || !"
    message = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    if "'<EOF>'" in message:
        message, offset = "it ends too early", len(text)
    elif unexpected := _UNEXPECTED.match(message):
        message = f'unexpected "{unexpected[1].strip()}"'
        if unexpected[1].startswith(("'", '"')):
            hint = "a text ends with the quote that it begins with, on the same line"
    return WhenFault("E047", message, hint, offset)


def _unknown(name: str, text: str, offset: int, principal: bool) -> WhenFault:
    root, dot, _ = name.partition(".")
    if text[offset : offset + 1] == "(" and not dot:
        return WhenFault("E047", f'unknown function "{name}"', nearest(name, _FUNCTIONS), max(offset - len(name), 0))
    start = text.rfind(root, 0, offset + 1) if dot else offset
    start = offset if start < 0 else start
    if root == "principal" and not principal:
        said = f"it asks for {name}, but routes match before anybody knows who calls: they see wire facts only"
        return WhenFault("E042", said, "ask in the select of a target: it sees the principal", start)
    known = (*_TYPES, *(_PRINCIPAL_TYPES if principal else ()), *GROUPS)
    if dashed := _DASHED.search(text[:start]):
        return WhenFault("E047", f'unknown name "{name}"', f'write {dashed[1]}["{dashed[2]}{name}"]', start)
    if root in ("request", "principal"):
        members = [each for each in known if each.startswith(f"{root}.")]
        return WhenFault("E047", f'unknown name "{name}"', nearest(name if dot else "", members), start)
    return WhenFault("E047", f'unknown name "{name}"', nearest(root, known), start)


def _misfit(operator: str, types: str, offset: int) -> WhenFault:
    spelled = _OPERATORS.get(operator) or operator.strip("_")
    types = types.replace("wrapper(string)", "string")
    hint = ""
    if "int" in types and "double" in types:
        hint = "int and double do not mix: write int(…) or double(…)"
    elif "int" in types and "string" in types:
        hint = "quote the number, or write int(…)"
    elif "null" in types:
        hint = "this is never null"
    return WhenFault("E049", f'"{spelled}" does not fit {types}', hint, offset)


def _a(kind: str) -> str:
    return "an int" if kind == "INT" else f"a {kind.lower()}"
