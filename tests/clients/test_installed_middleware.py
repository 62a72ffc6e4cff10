"""The example package: installed as any other distribution, named in rules, and met by each SDK."""

from __future__ import annotations

import importlib
import json
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from headgate.gateway import registry, rules

from ..fakes.distribution import lay, python
from ..fakes.gateway import CALLER_KEY
from ..fakes.provider import FakeProvider
from ..fakes.script import script
from ..server.house import serving
from .talk import ANTHROPIC, CALLERS, MODELS, OPENAI

EXAMPLE = Path(__file__).parents[2] / "examples" / "headgate-ceiling"
RULES = """
server: {{anonymous: allow}}
upstreams:
  openai: {{adapter: openai, base_url: "{base}/v1", key: env:TEST_PROVIDER_KEY}}
  anthropic: {{adapter: anthropic, base_url: "{base}", key: env:TEST_PROVIDER_KEY}}
chains: {{base: [{item}]}}
routes:
  - {{name: gpt, match: {{model: "gpt-*"}}, chain: base, to: openai}}
  - {{name: claude, match: {{model: "claude-*"}}, chain: base, to: anthropic}}
"""
LOWERED = "ceiling: {max_output_tokens: 300}"
REFUSED = "{use: ceiling, with: {max_output_tokens: 300, above: refuse}, fail: open}"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install it for this process, for as long as the test."""
    lay(EXAMPLE, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    importlib.invalidate_caches()
    registry._installed.cache_clear()
    yield
    registry._installed.cache_clear()
    sys.modules.pop("headgate_ceiling", None)


def client_of(caller: str, base: str, tls: ssl.SSLContext) -> Any:
    if caller == OPENAI:
        http = openai.DefaultAsyncHttpxClient(verify=tls)
        return openai.AsyncOpenAI(base_url=base + "/v1", http_client=http, api_key=CALLER_KEY, max_retries=0)
    other = anthropic.DefaultAsyncHttpxClient(verify=tls)
    return anthropic.AsyncAnthropic(base_url=base, http_client=other, api_key=CALLER_KEY, max_retries=0)


async def ask(caller: str, client: Any, to: str, stream: bool, most: int) -> None:
    resource = client.chat.completions if caller == OPENAI else client.messages
    cap = "max_completion_tokens" if caller == OPENAI else "max_tokens"
    messages = [{"role": "user", "content": "Hi."}]
    answer = await resource.create(model=MODELS[to], messages=messages, stream=stream, **{cap: most})
    if stream:
        async for _ in answer:
            pass


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("to", MODELS)
@pytest.mark.parametrize("caller", CALLERS)
async def test_what_the_provider_is_asked(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, installed: None, caller: str, to: str, stream: bool
) -> None:
    provider.answer(script("One."), script("Two."))
    text = RULES.format(base=provider.base, item=f"{{{LOWERED}}}")
    async with serving(tmp_path, text) as house, client_of(caller, house.base, tls) as client:
        await ask(caller, client, to, stream, 5000)
        await ask(caller, client, to, stream, 20)
    bodies = [json.loads(request.raw) for request in provider.requests]
    most = [body.get("max_completion_tokens", body.get("max_tokens")) for body in bodies]
    assert most == [300, 20]


@pytest.mark.parametrize("caller", CALLERS)
async def test_what_it_refuses_is_refused_even_if_it_fails_open(
    provider: FakeProvider, tls: ssl.SSLContext, tmp_path: Path, installed: None, caller: str
) -> None:
    text = RULES.format(base=provider.base, item=REFUSED)
    async with serving(tmp_path, text) as house, client_of(caller, house.base, tls) as client:
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError), match="at most 300 here"):
            await ask(caller, client, ANTHROPIC, False, 301)
    assert provider.requests == []


def test_its_own_tests_pass_and_its_rules_are_in_order(tmp_path: Path, installed: None) -> None:
    assert [str(each) for each in rules.check(EXAMPLE / "routes.yaml")] == []
    work = tmp_path / "work"
    shutil.copytree(EXAMPLE, work)
    options = ("-q", "-p", "no:cacheprovider", "-W", "error")
    done = python(tmp_path / "nowhere", work, "-m", "pytest", *options, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    assert done.returncode == 0, done.stdout + done.stderr


def test_an_installer_installs_it(tmp_path: Path) -> None:
    """As users do, but without the network; then the command finds it by its name."""
    shutil.copytree(EXAMPLE, tmp_path / "work")
    pip = (sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index", "--no-deps")
    made = (*pip, "--no-build-isolation", "--target", str(tmp_path / "site"), str(tmp_path / "work"))
    done = subprocess.run(made, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "headgate_ceiling" / "py.typed").is_file()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(EXAMPLE / "routes.yaml", elsewhere)
    found = python(tmp_path / "site", elsewhere, "-m", "headgate", "check", "routes.yaml")
    assert (found.returncode, found.stdout) == (0, "routes.yaml: 0 errors, 0 warnings\n")
    absent = python(tmp_path / "nowhere", elsewhere, "-m", "headgate", "check", "routes.yaml")
    assert (absent.returncode, "unknown middleware 'ceiling'" in absent.stdout) == (1, True), absent.stdout
