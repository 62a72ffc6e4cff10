"""The pages are true: links lead somewhere, pictures name what exists, examples run, every error kind is explained."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from headgate.gateway import rules
from headgate.gateway.errors import KINDS
from headgate.gateway.server.gateway import Gateway

ROOT = Path(__file__).parent.parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")})
EMBEDDING = (ROOT / "docs/embedding.md").read_text()
MIDDLEWARE = (ROOT / "docs/middleware.md").read_text()
HELLO = b'{"model": "demo", "messages": [{"role": "user", "content": "Hello there"}]}'


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


def anchors(page: Path) -> set[str]:
    """The anchors a forge makes of a page's headings."""
    return {
        re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")
        for heading in re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    }


by_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@by_page
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = page.parent / name if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_pictures_name_what_exists():
    named = {
        name
        for page in PAGES
        for picture in blocks(page.read_text(), "mermaid")
        for name in re.findall(r"\b(?:gateway|middlewares|adapters)(?:/\w+)+", picture)
    }
    assert len(named) > 8
    missing = [name for name in sorted(named) if not (ROOT / name).is_dir() and not (ROOT / f"{name}.py").is_file()]
    assert missing == []
    assert blocks((ROOT / "README.md").read_text(), "mermaid")


def test_readme_links_every_page():
    text = (ROOT / "README.md").read_text()
    unlinked = [page for page in PAGES if page.name != "README.md" and f"({page.relative_to(ROOT)})" not in text]
    assert unlinked == []


def test_every_error_kind_has_its_heading():
    headings = re.findall(r"^### `(.+)`$", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    assert sorted(headings) == sorted(KINDS)


@by_page
def test_python_examples_are_python(page):
    for number, block in enumerate(blocks(page.read_text(), "python")):
        indented = "".join(f"    {line}\n" for line in block.splitlines())
        compile(f"async def example():\n{indented}", f"{page.name} example {number}", "exec")


@by_page
def test_rules_in_pages_are_in_order(page, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "ALICE_KEY", "COHERE_API_KEY"):
        monkeypatch.setenv(name, f"a secret for {name}")
    for block in blocks(page.read_text(), "yaml"):
        if block.startswith("version:"):
            file = tmp_path / "routes.yaml"
            file.write_text(block)
            assert [str(problem) for problem in rules.check(file)] == []


def module_of_example(page: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the example of a page that defines class ``name`` importable; return the module's name."""
    (example,) = [block for block in blocks(page, "python") if f"class {name}:" in block]
    module = f"headgate_example_{name.lower()}"
    (tmp_path / f"{module}.py").write_text(example)
    monkeypatch.syspath_prepend(tmp_path)
    return module


async def answer(text: str, tmp_path: Path) -> str:
    """What a gateway with the rules in ``text`` says to HELLO."""
    file = tmp_path / "routes.yaml"
    file.write_text(text)
    async with Gateway.load(file) as gateway:
        reply = await gateway.handle("openai.chat", HELLO)
        chunks = await reply.collect()
    return "".join(getattr(event, "text", "") for chunk in chunks for event in chunk.events)


async def test_the_stage_of_the_middleware_page_works(tmp_path, monkeypatch):
    module = module_of_example(MIDDLEWARE, "Loud", tmp_path, monkeypatch)
    said = await answer(
        f"""
version: 1
upstreams:
  demo: {{adapter: simulator}}
chains:
  loud: [{{use: "{module}:Loud", with: {{mark: "!"}}}}]
routes:
  - {{name: all, chain: loud, to: demo}}
""",
        tmp_path,
    )
    assert said == "YOU !SAID: !HELLO !THERE!"


async def test_the_adapter_of_the_embedding_page_works(tmp_path, monkeypatch):
    module = module_of_example(EMBEDDING, "Echo", tmp_path, monkeypatch)
    said = await answer(
        f"""
version: 1
upstreams:
  echo: {{adapter: "{module}:Echo", greeting: good morning}}
routes:
  - {{name: all, to: echo}}
""",
        tmp_path,
    )
    assert said == "good morning "


def test_the_smallest_middleware_and_the_test_of_it(tmp_path, monkeypatch):
    """Ten lines, and the test that the page has for them: run as it stands there, but for the module's name."""
    module = module_of_example(MIDDLEWARE, "Stamp", tmp_path, monkeypatch)
    lines = (tmp_path / f"{module}.py").read_text().splitlines()
    assert len([line for line in lines if line and not line.startswith(("from", "import"))]) <= 10
    (test,) = [block for block in blocks(MIDDLEWARE, "python") if "def test_" in block]
    names: dict[str, Any] = {}
    exec(compile(test.replace("mypackage.stamp", module), "docs/middleware.md", "exec"), names)
    names["test_the_header"](tmp_path)


async def test_the_tally_of_the_middleware_page_outlives_a_reload(tmp_path, monkeypatch):
    module = module_of_example(MIDDLEWARE, "Tally", tmp_path, monkeypatch)
    file = tmp_path / "routes.yaml"
    file.write_text(
        "version: 1\nupstreams: {demo: {adapter: simulator}}\n"
        f'routes: [{{name: all, chain: [{{use: "{module}:Tally"}}], to: demo}}]\n'
    )
    async with Gateway.load(file) as gateway:
        for count in ("1", "2"):
            reply = await gateway.handle("openai.chat", HELLO)
            await reply.collect()
            assert reply.headers["x-tally"] == count
            await gateway.reload()


def test_the_facts_of_a_middleware_are_those_of_the_page():
    """What the chain asks a middleware for by name stands in the tables of the page."""
    asked = {
        name
        for path in (ROOT / "gateway").rglob("*.py")
        for name in re.findall(r'getattr\((?:each|made|middleware|inner), "([a-z_]+)", False\)', path.read_text())
    }
    assert {"needs_usage", "may_retry", "authenticates"} <= asked
    assert sorted(name for name in asked if f"`{name}`" not in MIDDLEWARE) == []
