"""The package that ``headgate new middleware`` writes: the text of each file, for a name."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from string import Template
from typing import Final

from ..version import VERSION

_PROJECT: Final = """\
[build-system]
requires = ["setuptools>=61"]
build-backend = "setuptools.build_meta"

[project]
name = "headgate-$name"
version = "0.1.0"
description = "The middleware $name for Headgate."
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["headgate>=$version"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points."headgate.middlewares"]
$name = "$module:$title"

[tool.setuptools]
packages = ["$module"]

[tool.setuptools.package-data]
$module = ["py.typed"]

[tool.pytest.ini_options]
pythonpath = ["."]
testpaths = ["tests"]
"""

_MODULE: Final = '''\
"""The middleware $name: says in a header that it was here, and in the log how long each answer was."""

from __future__ import annotations

import logging
from typing import Annotated, ClassVar

from headgate import Call, Chunk, GatewayError, Next, Reply
from headgate.gateway.ir.event import PartDelta
from msgspec import Meta, Struct

_log = logging.getLogger("$module")


class ${title}Options(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand below $name in the rules."""

    header: Annotated[str, Meta(pattern="^[a-z0-9-]+$$")] = "x-$name"
    """The header of the answer that it sets."""


class $title:
    """Sets a header, and counts the characters of the answer."""

    Options: ClassVar[type[Struct]] = ${title}Options

    def __init__(self, options: ${title}Options) -> None:
        self.options = options

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Serve a call. What is done before call_next is done to the request, what comes after to the answer."""
        # To refuse a call, raise one of headgate.gateway.errors; to change it, pass on call.replace(...) or
        # call.with_request(...).
        reply = await call_next(call)
        reply.headers = {**reply.headers, self.options.header: "1"}
        return reply.through(_Counting(call.request_id))


class _Counting:
    """Sees the chunks of one answer. It may not wait for anything: this runs between the provider and the caller."""

    __slots__ = ("_characters", "_request_id")

    def __init__(self, request_id: str) -> None:
        self._characters = 0
        self._request_id = request_id

    def feed(self, chunk: Chunk, /) -> Chunk:
        """Take a chunk; return it as it is, a new one in its place, or None to hold it back."""
        for event in chunk.events:
            if isinstance(event, PartDelta):
                self._characters += len(event.text)
        return chunk

    def close(self, error: GatewayError | None, /) -> None:
        """Hear that the answer is over: once, whether it ended well, failed or nobody wanted the rest."""
        _log.info(
            "%s: %d characters, %s", self._request_id, self._characters, "complete" if error is None else error.kind
        )
'''

_TEST: Final = '''\
"""$title, in a gateway without a socket, before a provider that the process plays itself."""

from __future__ import annotations

import asyncio
import json
import logging
from importlib.metadata import EntryPoint
from pathlib import Path
from tomllib import loads

import pytest
from headgate import Gateway
from headgate.gateway import rules
from headgate.gateway.ir.event import PartDelta

from $module import $title

RULES = """
version: 1
upstreams: {sim: {adapter: simulator}}
routes:
  - {name: all, chain: [{use: "$module:$title", with: {header: x-test}}], to: sim}
"""


async def ask(file: Path, *, stream: bool) -> tuple[str, str]:
    """Return the words of an answer, and what the header says."""
    body = {"model": "demo", "messages": [{"role": "user", "content": "Hello there"}], "stream": stream}
    async with Gateway.load(file) as gateway:
        reply = await gateway.handle("openai.chat", json.dumps(body).encode())
        chunks = await reply.collect()
    words = [event.text for chunk in chunks for event in chunk.events if isinstance(event, PartDelta)]
    return "".join(words), reply.headers["x-test"]


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture, stream: bool) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(RULES)
    caplog.set_level(logging.INFO, "$module")
    words, header = asyncio.run(ask(file, stream=stream))
    assert words.startswith("You said: Hello there")
    assert header == "1"
    assert f": {len(words)} characters, complete" in caplog.text


def test_a_mistake_in_the_rules_has_its_place(tmp_path: Path) -> None:
    file = tmp_path / "routes.yaml"
    file.write_text(RULES.replace("header:", "haeder:"))
    (problem,) = [each for each in rules.check(file) if each.severity == "error"]
    assert "haeder" in str(problem)
    assert ":5:" in str(problem)


def test_the_entry_point_leads_here() -> None:
    project = loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    value = project["entry-points"]["headgate.middlewares"]["$name"]
    assert EntryPoint("$name", value, "headgate.middlewares").load() is $title
'''

_README: Final = """\
# headgate-$name

The middleware `$name` for [Headgate](https://headgate.example/docs): sets a header, and says in the log how long each answer
was. Change `$module/__init__.py` until it does what you want; the pages of Headgate on middlewares say what it can do.

```sh
pip install -e '.[test]'       # from then on rules may name it
pytest
headgate check routes.yaml     # the rules beside this file
headgate serve routes.yaml
```

```yaml
chains:
  base: [{$name: {header: x-$name}}]
```

| Key | Default | |
|---|---|---|
| `header` | `x-$name` | the header of the answer that it sets |
"""

_RULES: Final = """\
version: 1

upstreams:
  demo: {adapter: simulator}

chains:
  base: [log, {$name: {header: x-$name}}]

routes:
  - {name: all, chain: base, to: demo}
"""

_FILES: Final[Mapping[str, str]] = {
    "pyproject.toml": _PROJECT,
    "README.md": _README,
    "routes.yaml": _RULES,
    "$module/__init__.py": _MODULE,
    "$module/py.typed": "",
    "tests/test_$module.py": _TEST,
}
_IMPORTED: Final = frozenset(
    (
        "Annotated",
        "Call",
        "Chunk",
        "ClassVar",
        "EntryPoint",
        "Gateway",
        "GatewayError",
        "Meta",
        "Next",
        "PartDelta",
        "Path",
        "Reply",
        "Struct",
    )
)
"""Names in the files that are not the middleware's."""


def files_of(name: str) -> dict[str, str]:
    """Return the text of every file, by its path in the package, for a middleware called ``name``: ``quiet-hours``."""
    words = {"name": name, "module": module_of(name), "title": class_of(name), "version": VERSION}
    return {Template(path).substitute(words): Template(text).substitute(words) for path, text in _FILES.items()}


def module_of(name: str) -> str:
    """Return the package's name: ``headgate_quiet_hours``."""
    return "headgate_" + name.replace("-", "_")


def class_of(name: str) -> str:
    """Return the class's name: ``QuietHours``; ``ReplyMiddleware`` where the shorter one is another's."""
    title = "".join(word.capitalize() for word in name.split("-"))
    return f"{title}Middleware" if title in _IMPORTED or keyword.iskeyword(title) else title
