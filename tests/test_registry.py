"""Names: ours, installed ones, and anything that can be imported; nothing is imported before it is asked for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from headgate.gateway import registry
from headgate.gateway.registry import Kind, UnknownName

LOOKUPS = {"middlewares": registry.middleware, "adapters": registry.adapter, "codecs": registry.codec}


@pytest.mark.parametrize("kind", get_args(Kind))
def test_all_of_ours_can_be_had(kind: Kind) -> None:
    names = registry.names(kind)
    assert names == sorted(names)
    assert names
    for name in names:
        found = LOOKUPS[kind](name)
        if kind == "codecs":
            assert found.format == name  # type: ignore[union-attr]
        else:
            assert issubclass(found.Options, msgspec.Struct)  # type: ignore[union-attr]


def test_every_file_of_a_room_is_named() -> None:
    """A middleware or adapter that nobody can name would be dead wood."""
    root = Path(__file__).parent.parent
    shared = {"__init__", "http", "operations", "passing"}
    named = {"continuation": "continue"}  # a word of Python's own cannot be imported
    for kind, room in (("middlewares", root / "middlewares"), ("adapters", root / "adapters")):
        files = {named.get(path.stem, path.stem) for path in room.glob("*.py")} - shared
        assert files <= set(registry.names(kind)), kind  # type: ignore[arg-type]


UNKNOWN = ["retri", "", "nothing", "no.such.module:Class", "json:Nothing", "json:", "json:dumps.x", "headgate:Nothing"]


@pytest.mark.parametrize("name", UNKNOWN)
@pytest.mark.parametrize("kind", get_args(Kind))
def test_unknown_names(kind: Kind, name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        LOOKUPS[kind](name)
    assert caught.value.known == (() if ":" in name else tuple(registry.names(kind)))


@pytest.mark.parametrize("name", [":Class", ".relative:Class", ":"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(UnknownName, match="cannot be imported"):
        registry.middleware(name)


def test_a_class_by_its_path() -> None:
    from headgate.middlewares.retry import Retry, RetryOptions

    assert registry.middleware("headgate.middlewares.retry:Retry") is Retry
    assert registry.middleware("headgate.middlewares.retry:Retry.Options") is RetryOptions


def test_our_names_cannot_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution does not replace auth by being installed."""
    from headgate.middlewares.auth import Auth

    monkeypatch.setattr(registry, "_installed", lambda kind: {"auth": "json:dumps", "other": "json:loads"})
    assert registry.middleware("auth") is Auth
    assert "other" in registry.names("middlewares")


def test_nothing_is_imported_before_it_is_named() -> None:
    code = (
        "import sys, headgate.gateway.registry as registry\n"
        "registry.names('middlewares'); registry.names('adapters')\n"
        "print(*sorted(name for name in sys.modules if name.startswith(('headgate.', 'aiohttp'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20)
    loaded = done.stdout.split()
    assert [name for name in loaded if name.startswith(("headgate.middlewares", "headgate.adapters", "aiohttp"))] == []
