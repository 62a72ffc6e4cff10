"""The pages are true: links lead somewhere, pictures name what exists, examples run, every error kind is explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.errors import KINDS
from headgate.gateway.server.gateway import Gateway

ROOT = Path(__file__).parent.parent
PAGES = sorted({*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("bench/*.md")})
EMBEDDING = (ROOT / "docs/embedding.md").read_text()
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


def module_of_example(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the example of docs/embedding.md that defines class ``name`` importable; return the module's name."""
    (example,) = [block for block in blocks(EMBEDDING, "python") if f"class {name}:" in block]
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


async def test_the_middleware_of_the_embedding_page_works(tmp_path, monkeypatch):
    module = module_of_example("Loud", tmp_path, monkeypatch)
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
    module = module_of_example("Echo", tmp_path, monkeypatch)
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
