"""A rule file that uses the whole language, and every mistake of shape that one slip can make of it.

The mistakes are made on plain data, by rules that know the document but not the loader: each says where it stands, and what
the loader must say there.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, NamedTuple

Path = tuple[str | int, ...]

WHOLE: dict[str, Any] = {
    "version": 1,
    "x-note": {"free": [1, None, {"a": "b"}]},
    "include": ["parts/*.yaml"],
    "server": {
        "listen": "127.0.0.1:8080",
        "anonymous": "refuse",
        "max_body": "32MiB",
        "max_header": "64KiB",
        "receive": "60s",
        "keep_alive": "15s",
        "drain": "30s",
        "trusted_proxies": ["10.0.0.0/8"],
        "cors": {"origins": ["https://app.example"]},
        "workers": 2,
        "response_headers": ["headgate-route"],
    },
    "defaults": {"timeout": {"connect": "5s", "first_token": "1m30s", "total": "30m"}, "loss": "report"},
    "prices": {"catalog": False, "models": {"gpt-*": {"input": 1.25, "output": 10, "cache_read": 0.125}}},
    "upstreams": {
        "sim": {
            "adapter": "simulator",
            "delay": "10ms",
            "timeout": {"idle": "2m", "pool": "1s", "write": "1s"},
            "models": ["demo"],
        },
        "paid": {
            "adapter": "openai",
            "base_url": "https://api.example/v1",
            "key": "env:HEADGATE_TEST_KEY",
            "credential": "own",
            "max_output_tokens": 4096,
            "chain": [{"retry": {"tries": 2, "backoff": "500ms", "max_wait": "10s", "on": ["connect", "overloaded"]}}],
            "pool": {
                "max_connections": 10,
                "keep_alive": "10s",
                "dns_ttl": "60s",
                "proxy": "http://proxy.example:3128",
                "verify": True,
            },
            "transport": "auto",
            "headers": {"x-team": "research", "authorization": "env:HEADGATE_TEST_KEY"},
        },
        "own": {"adapter": "rule_parts:Echo", "voice": "high"},
    },
    "chains": {
        "base": [
            {
                "auth": {
                    "keys": [
                        {
                            "name": "ada",
                            "key": "env:HEADGATE_TEST_KEY",
                            "team": "research",
                            "tenant": "t",
                            "tags": ["a"],
                        }
                    ]
                }
            },
            {"log": {"to": "stderr"}},
            {"use": "rule_parts:Mark", "with": {"limits": {"tries": 2, "wait": "1s"}, "refuse": False}, "fail": "open"},
        ],
        "all": [{"chain": "base"}, "retry"],
    },
    "targets": {
        "smart": {
            "select": [
                {
                    "match": {"request.tokens": {"gt": 180000, "lt": 900000}, "principal.tags": {"has": "batch"}},
                    "use": "paid/big",
                },
                {
                    "match": {"principal.key": ["ada", {"prefix": "b"}]},
                    "split": [{"use": "sim", "weight": 95.5}, {"use": "paid/small", "weight": 5}],
                    "sticky": "principal.key",
                },
                {"use": "own"},
            ],
            "on_failure": [{"kinds": ["rate_limit", "connect"], "use": "sim"}],
        }
    },
    "routes": [
        {
            "name": "agents",
            "match": {
                "format": ["openai.chat", "anthropic.messages"],
                "model": {"not": {"prefix": "gpt-", "suffix": "-mini"}},
                "path": "/v1/*",
                "header.user-agent": [{"prefix": "claude"}, "codex*"],
                "header.x-a": {"exists": True},
                "query.team": {"has": "x"},
                "metadata.depth": {"gt": 3},
                "request.stream": True,
                "request.tools": {"not": False},
            },
            "chain": "all",
            "to": "smart",
            "loss": "refuse",
            "timeout": "10m",
        },
        {"name": "rest", "chain": ["log"], "to": "sim/demo"},
    ],
    "tests": [
        {
            "name": "the rest goes home",
            "given": {
                "format": "openai.chat",
                "model": "any",
                "path": "/x",
                "headers": {"user-agent": "codex/1"},
                "query": {"team": "x"},
                "metadata": {"depth": 4},
                "stream": False,
                "tokens": 200,
                "tools": True,
                "has_image": False,
                "principal": {"key": "ada", "team": "research", "tenant": "t", "tags": ["batch"]},
                "branch": ["sim"],
                "down": ["paid"],
                "failures": [],
            },
            "expect": {
                "route": "rest",
                "target": "sim/demo",
                "upstream": "sim",
                "model": "demo",
                "chain": ["log"],
                "loss": [],
            },
        }
    ],
}

NAMES = (("upstreams",), ("chains",), ("targets",), ("prices", "models"))
"""Mappings whose keys are names of one's own."""
FREE = ("headers", "query", "metadata", "x-note")
"""Mappings whose keys are anybody's."""
OPERATORS = frozenset({"prefix", "suffix", "has", "not", "gt", "lt", "exists"})
MIDDLEWARES = frozenset({"auth", "log", "retry"})
UNITS = frozenset({"max_body", "max_header", "receive", "drain", "connect", "first_token", "total", "idle", "pool", "write",
                   "delay", "backoff", "max_wait", "dns_ttl", "wait", "keep_alive", "timeout"})  # fmt: skip
REQUIRED = {
    "version": (),
    "adapter": ("upstreams", "*"),
    "origins": ("server", "cors"),
    "input": ("prices", "models", "*"),
    "select": ("targets", "*"),
    "kinds": ("targets", "*", "on_failure", "*"),
    "to": ("routes", "*"),
    "name": ("routes", "*"),
    "given": ("tests", "*"),
    "expect": ("tests", "*"),
}


class Mutant(NamedTuple):
    """One mistake. ``path`` is where the loader must say ``code``: at the key if ``at_key``, else at the value.

    ``named`` must stand in what it says; for a misspelt key it is the right one.
    """

    title: str
    data: dict[str, Any]
    path: Path
    at_key: bool
    code: str
    named: str


def mutants() -> Iterator[Mutant]:
    """Yield every mistake."""
    yield from misspelt_keys()
    yield from wrong_types()
    yield from missing_units()
    yield from missing_keys()


def misspelt_keys() -> Iterator[Mutant]:
    """A letter doubled, and two letters the wrong way round, in every key of the language."""
    for path, value in walk(WHOLE):
        key = path[-1]
        if (
            isinstance(value, _Item)
            or not isinstance(key, str)
            or path[:-1] in NAMES
            or is_free(path)
            or key == "x-note"
        ):
            continue
        of_item = key in MIDDLEWARES or (path[0] == "chains" and key in ("chain", "use"))
        code = "E040" if is_fact(path) else "E041" if key in OPERATORS else "E012"
        for wrong in sorted({_doubled(key), _swapped(key)} - {key}):
            title, data = f"{_show(path)}: {wrong}", _renamed(path, wrong)
            if of_item:  # the whole item is then something else
                yield Mutant(title, data, path[:-1], False, "E035" if key == "use" else "E031", wrong)
            else:
                yield Mutant(title, data, (*path[:-1], wrong), True, code, key)


def wrong_types() -> Iterator[Mutant]:
    """Every value replaced by one that cannot stand there."""
    for path, value in walk(WHOLE):
        value = value.value if isinstance(value, _Item) else value
        if path[0] == "x-note" or (is_free(path) and path[-2] == "metadata"):
            continue
        for wrong in _wrong(path, value):
            code, at = "E011", path
            if path == ("version",):
                code = "E014"
            elif (
                _chain_item(path)
                or (path[-1] == "chain" and path[0] == "chains")
                or (path[-1] == "use" and path[0] == "chains")
            ):
                code = "E035"
            elif wrong is not None and (path[-1] == "key" and path[0] in ("upstreams", "chains")):
                code = "E020"
            yield Mutant(f"{_show(path)} = {wrong!r}", _changed(path, wrong), at, False, code, "")


def missing_units() -> Iterator[Mutant]:
    """A bare number, and a unit of nobody's, wherever a unit is due."""
    for path, value in walk(WHOLE):
        if path[-1] in UNITS and isinstance(value, str):
            number = int("".join(letter for letter in value if letter.isdigit()))
            for wrong in (number, f"{number}", f"{number} parsecs"):
                yield Mutant(f"{_show(path)} = {wrong!r}", _changed(path, wrong), path, False, "E011", "such as")


def missing_keys() -> Iterator[Mutant]:
    """Every key that must be there, left out."""
    for path, _ in walk(WHOLE):
        wanted = REQUIRED.get(path[-1])
        if wanted is not None and _matches(path[:-1], wanted):
            data = copy.deepcopy(WHOLE)
            del _at(data, path[:-1])[path[-1]]
            yield Mutant(f"{_show(path)} left out", data, path[:-1], False, "E010", str(path[-1]))
    data = copy.deepcopy(WHOLE)
    auth = ("chains", "base", 0, "auth")
    del _at(data, auth)["keys"]
    yield Mutant("nobody may call", data, auth, False, "E011", "keys")


class _Item(NamedTuple):
    """An item of a list, whose path ends with a number."""

    value: Any


def walk(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path of every value below ``value``; items of lists come wrapped."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield (*path, key), each
            yield from walk(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            yield (*path, at), _Item(each)
            yield from walk(each, (*path, at))


def is_free(path: Path) -> bool:
    """Whether the key is one of a mapping with anybody's keys."""
    return any(str(step) in FREE for step in path[:-1])


def is_fact(path: Path) -> bool:
    """Whether the key is a fact of a match."""
    return len(path) > 1 and path[-2] == "match"


def _doubled(key: str) -> str:
    head, dot, tail = key.rpartition(".")
    return f"{head}{dot}{tail}{tail[-1]}" if not head.startswith(("header", "query", "metadata")) else f"{head[0]}{key}"


def _swapped(key: str) -> str:
    return key[0] + key[2] + key[1] + key[3:] if len(key) > 4 and key[0] + key[2] + key[1] != key[:3] else key


def _wrong(path: Path, value: Any) -> Iterator[Any]:
    """Yield values of another kind than ``value``."""
    if isinstance(value, dict):
        if not _fact_value(path):  # where a condition stands, a text or a list is one too
            yield from [["x"]] if _chain_item(path) else ["text", ["x"]]
        elif path[-1] == "match":
            yield from ["text", ["x"]]
    elif isinstance(value, list):
        yield from [7] if path[-1] in ("include", "branch", "chain") or is_fact(path) else ["text", {"a": "b"}]
    elif isinstance(value, bool):
        yield from ["perhaps", 7]
    elif isinstance(value, int | float):
        yield from ["many", True, ["x"]] if not _fact_value(path) else ["many", True]
    elif isinstance(value, str):
        if _fact_value(path):
            yield from [7, True, None]
        elif _chain_item(path):
            yield from [7, None, ["x"]]
        else:
            yield from [7, True, {"a": "b"}]
            if path != ("routes", 0, "chain"):  # a name or a list
                yield ["x"]


def _chain_item(path: Path) -> bool:
    if len(path) < 3 or not isinstance(path[-1], int) or path[0] == "tests":
        return False
    return path[-2] == "chain" or (path[0] == "chains" and len(path) == 3)


def _fact_value(path: Path) -> bool:
    return "match" in path


def _renamed(path: Path, wrong: str) -> dict[str, Any]:
    """Return the document with the key at ``path`` called ``wrong``, in the same place."""
    data = copy.deepcopy(WHOLE)
    table = _at(data, path[:-1])
    items = [(wrong if key == path[-1] else key, value) for key, value in table.items()]
    table.clear()
    table.update(items)
    return data


def _changed(path: Path, wrong: Any) -> dict[str, Any]:
    data = copy.deepcopy(WHOLE)
    _at(data, path[:-1])[path[-1]] = wrong
    return data


def _at(data: Any, path: Path) -> Any:
    for step in path:
        data = data[step]
    return data


def _matches(path: Path, wanted: Path) -> bool:
    return len(path) == len(wanted) and all(want in ("*", step) for step, want in zip(path, wanted, strict=True))


def _show(path: Path) -> str:
    return ".".join(map(str, path))
