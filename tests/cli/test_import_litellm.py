"""``headgate import litellm``: a configuration of 40 lines is carried, accounted for, and serves as it did."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from aiohttp import ClientSession
from headgate.gateway import rules
from headgate.gateway.cli.main import main
from headgate.gateway.errors import RETRYABLE
from headgate.gateway.importers import convert
from headgate.gateway.importers.draft import ANY_ERROR

from ..fakes.provider import FakeProvider
from ..fakes.script import script
from .importing import CORPUS, MESSAGES, ask, imported, serving_file

SOURCE = CORPUS / "litellm.yaml"
MASTER = "sk-the-master-key-of-litellm"
INLINE = "inline-key-of-the-american-deployment"
NAMES = ("EU_API_BASE", "US_API_BASE", "CLAUDE_API_BASE", "EU_API_KEY", "OPENAI_API_KEY", "ANTHROPIC_API_KEY")


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    for name in (*NAMES, "LITELLM_MASTER_KEY"):
        monkeypatch.delenv(name, raising=False)


def of(text: str, **environment: str):
    """The rule file and report of a LiteLLM configuration."""
    made = convert("litellm", text, "config.yaml", environment)
    rules.loads(made.text)
    return made


def section(text: str, name: str) -> str:
    """A section of a rule file, its lines joined."""
    _, _, rest = text.partition(f"\n{name}:\n")
    return " ".join(rest.partition("\n\n")[0].split())


def test_the_file_passes_check_and_its_tests(tmp_path, capsys):
    target, _ = imported("litellm", SOURCE, tmp_path, capsys)
    assert [problem for problem in rules.check(target) if problem.severity == "error"] == []
    trials, _ = rules.try_out(target)
    assert len(trials) == 5 and all(trial.passed for trial in trials)
    assert main(["fmt", "--check", str(target)]) == 0


def test_no_key_is_written_anywhere(tmp_path, capsys):
    target = tmp_path / "routes.yaml"
    assert main(["import", "litellm", str(SOURCE), "-o", str(target)]) == 0
    shown = capsys.readouterr()
    for text in (target.read_text(), shown.out, shown.err):
        assert MASTER not in text and INLINE not in text and "user:word" not in text


def test_the_report_says_what_was_not_carried(tmp_path, capsys):
    target, entries = imported("litellm", SOURCE, tmp_path, capsys)
    assert [(entry["outcome"], entry["path"], entry["line"]) for entry in entries] == [
        ("changed", "model_list[0].litellm_params.api_base", 6),
        ("changed", "model_list[1].litellm_params.api_base", 12),
        ("secret", "model_list[1].litellm_params.api_key", 13),
        ("changed", "model_list[1].litellm_params.timeout", 15),
        ("changed", "model_list[2].litellm_params.api_base", 19),
        ("left out", "model_list[2].litellm_params.temperature", 21),
        ("changed", "model_list[3].litellm_params.api_base", 25),
        ("left out", "model_list[4]", 27),
        ("left out", "litellm_settings.success_callback", 37),
        ("left out", "litellm_settings.cache", 38),
        ("secret", "general_settings.master_key", 40),
        ("left out", "general_settings.database_url", 41),
    ]
    comments = " ".join(line.removeprefix("#").strip() for line in target.read_text().splitlines() if line[:1] == "#")
    for entry in entries:
        assert f"line {entry['line']}: {entry['path']} " in comments and entry["why"] in comments


async def test_it_serves_as_it_did(tmp_path, capsys, monkeypatch):
    async with FakeProvider() as eu, FakeProvider() as us, FakeProvider() as claude, ClientSession() as session:
        monkeypatch.setenv("EU_API_BASE", f"{eu.base}/v1")
        monkeypatch.setenv("US_API_BASE", f"{us.base}/v1")
        monkeypatch.setenv("CLAUDE_API_BASE", claude.base)
        target, entries = imported("litellm", SOURCE, tmp_path, capsys)
        told = {entry["path"]: entry["instead"].rpartition(" ")[2] for entry in entries if entry["outcome"] == "secret"}
        keys = {"EU_API_KEY": eu.key, "ANTHROPIC_API_KEY": claude.key}
        keys[told["model_list[1].litellm_params.api_key"]] = us.key
        keys[told["general_settings.master_key"]] = MASTER
        for name, value in keys.items():
            monkeypatch.setenv(name, value)

        async with serving_file(target) as base:
            body = {"model": "gpt-4o", "messages": MESSAGES}

            # the master key is required
            for key in (None, "sk-another"):
                status, _, _ = await ask(session, base, "/v1/chat/completions", body, key)
                assert status == 401
            assert not eu.requests and not us.requests

            # three of four go to the heavier deployment
            for _ in range(400):
                status, _, answer = await ask(session, base, "/v1/chat/completions", body, MASTER)
                assert status == 200 and answer["choices"][0]["message"]["content"] == "Hello!"
            assert 250 < len(eu.requests) < 350 and len(eu.requests) + len(us.requests) == 400
            assert eu.last.json["model"] == "gpt-4o-eu" and us.last.json["model"] == "gpt-4o-us"
            assert not claude.requests

            # one deployment is busy: the group is drawn again, then the fallback answers
            for provider in (eu, us):
                provider.answer(*[script(status=429)] * 2)
            status, headers, answer = await ask(session, base, "/v1/chat/completions", body, MASTER)
            assert status == 200 and headers["headgate-upstream"] == "anthropic" and headers["headgate-attempts"] == "3"
            assert claude.last.json["model"] == "claude-sonnet-4-5" and len(claude.requests) == 1
            assert eu.unanswered + us.unanswered == 2
            eu._queue.clear()
            us._queue.clear()

            # aliases and wildcards
            before = len(eu.requests) + len(us.requests)
            status, headers, _ = await ask(session, base, "/v1/chat/completions", {**body, "model": "gpt-4"}, MASTER)
            assert status == 200 and len(eu.requests) + len(us.requests) == before + 1
            status, headers, _ = await ask(session, base, "/v1/chat/completions", {**body, "model": "gpt-5.4"}, MASTER)
            assert status == 200 and eu.last.json["model"] == "gpt-5.4"
            assert (await ask(session, base, "/v1/chat/completions", {**body, "model": "titan"}, MASTER))[0] == 404
            assert {eu.key, us.key, claude.key}.isdisjoint({MASTER})
            assert all(MASTER.encode() not in each.raw for each in (*eu.requests, *us.requests, *claude.requests))


# -- single settings

ONE = "model_list: [{model_name: m, litellm_params: {model: openai/x%s}}]\n"


@pytest.mark.parametrize(
    ("provider", "upstream"),
    [
        ("openai/x", "openai: {adapter: openai, key: "),
        ("x", None),
        ("gpt-5.4", "openai: {adapter: openai, key: "),
        ("claude-opus-4-6", "anthropic: {adapter: anthropic, key: "),
        ("groq/x", 'groq: adapter: openai base_url: "https://api.groq.com/openai/v1"'),
        ("openrouter/a/b", 'base_url: "https://openrouter.ai/api/v1"'),
        ("mistral/x", 'base_url: "https://api.mistral.ai/v1"'),
        ("deepseek/x", 'base_url: "https://api.deepseek.com/v1"'),
        ("together_ai/a/b", 'base_url: "https://api.together.xyz/v1"'),
        ("fireworks_ai/a/b", 'base_url: "https://api.fireworks.ai/inference/v1"'),
        ("xai/x", 'base_url: "https://api.x.ai/v1"'),
        ("moonshot/x", 'base_url: "https://api.moonshot.ai/v1"'),
        ("gemini/x", 'base_url: "https://generativelanguage.googleapis.com/v1beta/openai"'),
        ("ollama/x", 'ollama: {adapter: openai, base_url: "http://127.0.0.1:11434/v1"'),
        ("ollama_chat/x", 'ollama: {adapter: openai, base_url: "http://127.0.0.1:11434/v1"'),
        ("lm_studio/x", 'base_url: "http://127.0.0.1:1234/v1"'),
        ("hosted_vllm/x", None),
        ("bedrock/x", None),
        ("vertex_ai/x", None),
        ("sagemaker/x", None),
        ("nobody/x", None),
    ],
)
def test_providers(provider, upstream):
    made = of(f'model_list: [{{model_name: m, litellm_params: {{model: "{provider}"}}}}]')
    if upstream is None:
        assert "\nupstreams:" not in made.text and "\nroutes:" not in made.text
        assert [(entry.outcome, entry.path) for entry in made.entries] == [("left out", "model_list[0]")]
        assert made.entries[0].why
    else:
        assert upstream in section(made.text, "upstreams")
        assert made.entries == ()
        assert made.text.startswith("# Imported from a configuration of LiteLLM.\n# Everything in it was carried.\n")


@pytest.mark.parametrize(
    ("model", "address", "base_url"),
    [
        ("azure/gpt", "https://me.openai.azure.com/", "https://me.openai.azure.com/openai/v1"),
        ("azure/gpt", "https://me.openai.azure.com/openai/v1/", "https://me.openai.azure.com/openai/v1"),
        (
            "azure/gpt",
            "https://me.openai.azure.com/openai/deployments/gpt/chat/completions?api-version=2024-02-01",
            "https://me.openai.azure.com/openai/v1",
        ),
        ("anthropic/claude", "https://proxy.example/v1/messages", "https://proxy.example"),
        ("openai/x", "http://10.0.0.7:8000/v1/chat/completions", "http://10.0.0.7:8000/v1"),
        ("openai/x", "http://10.0.0.7:8000/v1", "http://10.0.0.7:8000/v1"),
        ("hosted_vllm/x", "http://10.0.0.7:8000/v1/", "http://10.0.0.7:8000/v1"),
        ("ollama/x", "http://gpu:11434", "http://gpu:11434/v1"),
        ("openai/x", "os.environ/WHERE", "http://known.example/v1"),
        ("openai/x", "os.environ/NOWHERE", "https://nowhere.invalid"),
        ("azure/x", "os.environ/AZURE_API_BASE", "https://azure-api-base.invalid/openai/v1"),
    ],
)
def test_addresses(model, address, base_url):
    text = f'model_list: [{{model_name: m, litellm_params: {{model: {model}, api_base: "{address}", api_key: os.environ/K}}}}]'
    assert f'base_url: "{base_url}"' in of(text, WHERE="http://known.example/v1").text


@pytest.mark.parametrize(
    "address", ["nowhere", "ftp://x/v1", "http://u:p@x/v1", "http://x:bad/v1", "http://[/v1", "http://a b"]
)
def test_an_address_that_is_none(address):
    made = of(ONE % f', api_base: "{address}"')
    assert "routes:" not in made.text
    assert "u:p" not in made.text + str(made.entries)


@pytest.mark.parametrize(
    ("first", "second", "split"),
    [
        ("weight: 9", "weight: 1", "{use: openai/a, weight: 9}, {use: openai/b, weight: 1}"),
        ("rpm: 900", "rpm: 100", "{use: openai/a, weight: 900}, {use: openai/b, weight: 100}"),
        ("tpm: 5", "tpm: 7", "{use: openai/a, weight: 5}, {use: openai/b, weight: 7}"),
        ("weight: 1", "weight: 1", "{use: openai/a}, {use: openai/b}"),
        ("rpm: 1, weight: 3", "rpm: 9, weight: 1", "{use: openai/a, weight: 3}, {use: openai/b, weight: 1}"),
        ("seed: 1", "weight: 5", "{use: openai/a}, {use: openai/b}"),
        ("weight: 1", "seed: 1", None),
        ("weight: 0", "weight: 0", "{use: openai/a}, {use: openai/b}"),
    ],
)
def test_shares_are_those_of_litellms_shuffle(first, second, split):
    made = of(
        "model_list:\n"
        f"- {{model_name: m, litellm_params: {{model: openai/a, {first}}}}}\n"
        f"- {{model_name: m, litellm_params: {{model: openai/b, {second}}}}}\n"
    )
    targets = section(made.text, "targets")
    assert (f"split: [{split}]" in targets) if split else ("split:" not in made.text)


def test_order_is_a_fallback_between_deployments():
    made = of(
        "model_list:\n"
        "- {model_name: m, litellm_params: {model: openai/b, order: 2}}\n"
        "- {model_name: m, litellm_params: {model: openai/a, order: 1}}\n"
    )
    target = yaml.safe_load(made.text)["targets"]["m"]
    assert target["select"] == [{"use": "openai/a"}] and [each["use"] for each in target["on_failure"]] == ["openai/b"]
    assert set(target["on_failure"][0]["kinds"]) >= RETRYABLE


FALLBACKS = """
model_list:
  - {model_name: a, litellm_params: {model: openai/a}}
  - {model_name: b, litellm_params: {model: openai/b}}
  - {model_name: c, litellm_params: {model: openai/c}, model_info: {id: the-id-of-c}}
"""


@pytest.mark.parametrize(
    ("settings", "group", "uses"),
    [
        ("fallbacks: [{a: [b, c]}]", "a", ["any openai/b", "any openai/c"]),
        ("fallbacks: [{a: [b]}, {b: [a]}]", "a", ["any openai/b"]),
        ("fallbacks: [{a: [b]}, {b: [a]}]", "b", ["any openai/a"]),
        ("fallbacks: [{a: [b]}, {b: [c]}]", "a", ["any openai/b", "any openai/c"]),
        ("fallbacks: [{a: [the-id-of-c]}]", "a", ["any openai/c"]),
        ("fallbacks: [{a: [gone, c]}]", "a", ["any openai/c"]),
        ("default_fallbacks: [c]", "b", ["any openai/c"]),
        ('fallbacks: [{"*": [c]}, {a: [b]}]', "b", ["any openai/c"]),
        ("context_window_fallbacks: [{a: [b]}]", "a", ["context_length openai/b"]),
        ("content_policy_fallbacks: [{a: [b]}]", "a", ["content_filter openai/b"]),
        (
            "fallbacks: [{a: [c]}]\n  context_window_fallbacks: [{a: [b]}]",
            "a",
            ["context_length openai/b", "any but context_length openai/c"],
        ),
        (
            "fallbacks: [{c: [a]}]\n  context_window_fallbacks: [{a: [b]}]",
            "c",
            ["any but context_length openai/a"],
        ),
    ],
)
@pytest.mark.parametrize("place", ["router_settings", "litellm_settings"])
def test_fallbacks(settings, group, uses, place):
    made = of(f"{FALLBACKS}{place}:\n  num_retries: 0\n  {settings}\n")
    target = yaml.safe_load(made.text)["targets"][group]
    assert target["select"] == [{"use": f"openai/{group}"}]
    found = []
    for entry in target["on_failure"]:
        missing = [kind for kind in ANY_ERROR if kind not in entry["kinds"]]
        kinds = "any" if not missing else f"any but {missing[0]}" if len(missing) == 1 else " ".join(entry["kinds"])
        found.append(f"{kinds} {entry['use']}")
    assert found == uses


@pytest.mark.parametrize(
    ("settings", "chain"),
    [
        ("num_retries: 4", "chain: [{retry: {tries: 5}}]"),
        ("num_retries: 0", None),
        ("timeout: 30", "chain: [{retry: {tries: 3}}]"),
        (
            "retry_policy: {RateLimitErrorRetries: 2, BadRequestErrorRetries: 0}",
            'retry: {tries: 3, "on": [quota, rate_limit]}',
        ),
    ],
)
def test_retries_of_one_deployment(settings, chain):
    text = of(f"{ONE % ''}router_settings: {{{settings}}}\n").text
    assert (chain in text) if chain else ("retry" not in text)


@pytest.mark.parametrize(
    ("name", "model", "match", "to"),
    [
        ("*", "openai/*", 'match: {model: "*"}', "to: openai"),
        ("claude-*", "anthropic/claude-*", "match: {model: claude-*}", "to: anthropic"),
        ("anthropic/*", "anthropic/*", "match: {model: claude-*}", "to: anthropic"),
        ("openai/gpt-*", "openai/gpt-*", "match: {model: gpt-*}", "to: openai"),
        ("any-*", "openai/gpt-5.4", "match: {model: any-*}", "to: openai/gpt-5.4"),
        ("openrouter/*", "openrouter/*", None, ""),
        ("mine-*", "openai/gpt-*", None, ""),
    ],
)
def test_wildcards(name, model, match, to):
    made = of(f'model_list: [{{model_name: "{name}", litellm_params: {{model: "{model}"}}}}]')
    if match is None:
        assert "routes:" not in made.text and made.entries[0].path == "model_list[0]"
    else:
        assert match in made.text and to in made.text


def test_exact_names_come_before_wildcards_and_long_before_short():
    names = ["*", "gpt-*", "gpt-4o-*", "zeta"]
    models = {"zeta": "openai/z", "gpt-4o-*": "openai/gpt-4o-*", "gpt-*": "openai/gpt-*", "*": "openai/*"}
    made = of(
        "model_list:\n" + "".join(f'- {{model_name: "{n}", litellm_params: {{model: "{models[n]}"}}}}\n' for n in names)
    )
    assert [route.name for route in rules.loads(made.text).routes] == ["zeta", "gpt-4o-*", "gpt-*", "*"]


def test_headers_and_time_outs():
    headers = "{x-team: blue, x-api-token: hidden-value, x-env: os.environ/TEAM, host: h}"
    made = of(ONE % f", extra_headers: {headers}, timeout: 90, stream_timeout: 2.5")
    upstream = section(made.text, "upstreams")
    assert "x-team: blue" in upstream and 'x-env: "env:TEAM?"' in upstream and 'x-api-token: "env:' in upstream
    assert "timeout: {total: 90s, first_token: 2500ms}" in upstream
    assert "hidden-value" not in made.text
    assert ("left out", "model_list[0].litellm_params.extra_headers.host") in {
        (e.outcome, e.path) for e in made.entries
    }


def test_inline_keys_become_variables_of_their_own():
    made = of(
        "model_list:\n"
        "- {model_name: a, litellm_params: {model: openai/a, api_key: first-secret}}\n"
        "- {model_name: b, litellm_params: {model: openai/b, api_key: second-secret}}\n"
        "- {model_name: c, litellm_params: {model: openai/c, api_key: first-secret}}\n"
        "- {model_name: d, litellm_params: {model: openai/d, api_key: os.environ/OPENAI_API_KEY}}\n"
    )
    assert [upstream.name for upstream in rules.loads(made.text).upstreams.values()] == [
        "openai",
        "openai-b",
        "openai-d",
    ]
    assert '"env:OPENAI_API_KEY_2?"' in made.text and '"env:OPENAI_API_KEY_3?"' in made.text
    assert "secret" not in made.text.replace("secret:", "")


def test_other_kinds_of_models_are_left_out():
    made = of("model_list: [{model_name: e, litellm_params: {model: openai/e}, model_info: {mode: embedding}}]")
    assert "routes:" not in made.text and "Headgate serves chat, not embedding" in made.entries[0].why


def test_two_places_for_one_setting():
    made = of(f"{ONE % ''}router_settings: {{num_retries: 4}}\nlitellm_settings: {{num_retries: 1}}\n")
    assert "tries: 5" in made.text
    assert [(e.path, e.outcome) for e in made.entries] == [("litellm_settings.num_retries", "left out")]


def test_the_example_in_the_documentation_is_what_comes_out():
    page = (CORPUS.parent.parent.parent / "docs/migration.md").read_text()
    before, after = re.findall(r"^```yaml\n(.*?)^```", page, re.M | re.S)
    made = of(before)
    assert made.text[made.text.index("version: 1") :] == after and len(made.entries) == 3


# -- the command


def test_a_file_is_never_replaced_unasked(tmp_path, capsys):
    target = tmp_path / "routes.yaml"
    target.write_text("mine")
    assert main(["import", "litellm", str(SOURCE), "-o", str(target)]) == 1
    assert target.read_text() == "mine" and "stays as it is" in capsys.readouterr().err
    assert main(["import", "litellm", str(SOURCE), "-o", str(target), "--force"]) == 0
    assert "gpt-4o" in target.read_text()


def test_rules_go_to_stdout_and_the_report_to_stderr(capsys):
    assert main(["import", "litellm", str(SOURCE)]) == 0
    shown = capsys.readouterr()
    assert rules.loads(shown.out).routes
    assert shown.err.splitlines()[-1] == "5 left out, 5 changed, 2 secrets to be set"
    assert main(["import", "litellm", str(SOURCE), "--json"]) == 0
    shown = capsys.readouterr()
    assert rules.loads(shown.out).routes and len(json.loads(shown.err)["entries"]) == 12


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"model_list: [\n", ":2:1 error E002"),
        (b"a: 1\na: 2\n", ":2:1 error E004"),
        (b"- a\n- b\n", ":1:1 error E011 expected a mapping, found a list"),
        (b"", "found nothing"),
        (b"a: \xe9\n", "not UTF-8"),
        (b"a: *gone\n", ":1:4 error E007"),
        (b"a: !!python/name:os.system\n", "error E003"),
        (b"? [a]\n: 1\n", "error E003"),
    ],
)
def test_what_is_no_configuration(content, said, tmp_path, capsys):
    source = tmp_path / "config.yaml"
    source.write_bytes(content)
    assert main(["import", "litellm", str(source)]) == 1
    shown = capsys.readouterr()
    assert said in shown.err and shown.out == ""


def test_a_missing_source_or_directory(tmp_path, capsys):
    assert main(["import", "litellm", "gone.yaml"]) == 1
    assert "cannot read gone.yaml" in capsys.readouterr().err
    assert main(["import", "litellm", str(SOURCE), "-o", str(tmp_path / "gone/routes.yaml")]) == 1
    assert "cannot write" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["import", "nginx", "x"])
