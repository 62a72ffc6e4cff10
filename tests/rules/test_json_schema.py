"""The schema and the loader accept and refuse the same files, as far as a schema can see."""

import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import msgspec
import pytest
from headgate.gateway import registry
from headgate.gateway.rules import schema
from headgate.gateway.rules.docstrings import field_docs
from headgate.gateway.rules.document import parse, plain
from headgate.gateway.rules.json_schema import VISIBLE, json_schema
from headgate.gateway.rules.problems import CATALOGUE, Problems

from .emit import emit
from .mutants import WHOLE, mutants
from .test_mistakes import MISTAKES, SIM, planted

ROOT = Path(__file__).parents[2]
SHIPPED = [ROOT / "routes.yaml", *sorted((ROOT / "examples" / "routes").glob("*.yaml"))]
STEPS = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "rules.md").read_text(encoding="utf-8"), re.DOTALL)

BEYOND = {
    "server: {drain: 30s, keep_alive: §0s}\n",
    "server: {trusted_proxies: §[10.0.0.0/99]}\n",
    "server: {cors: {origins: §[app.example]}}\n",
    "server: {response_headers: §[x-powered-by]}\n",
    "stores: {a: {ttl: §0s}}\n",
    "stores: {a: {kind: §sqlite}}\n",
    "stores: {a: {path: §a.db}}\n",
    "defaults: {reasoning: {ttl: §0s}}\n",
    "server: {tls: {cert: §nowhere.pem, key: routes.yaml}}\n",
    "media: {fetch: {hosts: §['https://a.example']}}\n",
    "media: {fetch: {hosts: [a], timeout: §0s}}\n",
    "upstreams:\n  sim: {adapter: simulator, base_url: §localhost:9}\n",
    "upstreams:\n  sim: {adapter: simulator, pool: {proxy: §nonsense}}\n",
    "upstreams:\n  sim: {adapter: simulator, pool: {ca_bundle: §no.pem}}\n",
    "upstreams:\n  sim: {adapter: simulator, headers: {§host: a}}\n",
    'upstreams:\n  sim: {adapter: simulator, headers: {x-a: §"a\\nb: c"}}\n',
    f"{SIM}routes: [{{name: a, to: §sim/}}]\n",
    "targets: {a: {select: [use: sim]}}\nroutes: [{name: a, to: §a/m}]\n",
    "include: §a/**/b.yaml\n",
    "include: [§routes.yaml]\n",
    "upstreams:\n  sim: {adapter: §no.such:Thing}\n",
    'chains:\n  a: [{use: "rule_parts:Mark", with: {limits: {tries: §99}}}]\n',
    'chains:\n  a: [{use: "rule_parts:Mark", with: {steps: [{}, {§trise: 1}]}}]\n',
}
"""Planted mistakes with a code of shape that only a look at the value, the file system or another section can find."""


OWN_OPTIONS = re.compile(r"upstreams\.own\.v\w+|chains\.base\.2\.with\..+")
"""Places within the options of a class that is named in the file: only importing it tells what they are."""


@pytest.fixture(scope="module")
def validator():
    written = json_schema()
    jsonschema.Draft202012Validator.check_schema(written)
    return jsonschema.Draft202012Validator(written)


@pytest.fixture
def errors_of(problems_of):
    """Return a function from a rule file's text to the codes of its errors."""
    return lambda text: {each.code for each in problems_of(text) if each.severity == "error"}


def data_of(text):
    root = parse(text, "f", Problems())
    return None if root is None else plain(root)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_files_are_accepted(path, validator):
    assert list(validator.iter_errors(data_of(path.read_text()))) == []


@pytest.mark.parametrize("step", STEPS, ids=range(len(STEPS)))
def test_the_tutorial_is_accepted(step, validator):
    assert list(validator.iter_errors(data_of(step))) == []


def test_the_whole_language_is_accepted(validator, errors_of):
    assert errors_of(emit(WHOLE).text) == set()
    assert list(validator.iter_errors(WHOLE)) == []


def test_what_the_loader_refuses_for_its_shape_the_schema_refuses(validator, errors_of):
    wrong = []
    for mutant in mutants():
        codes = errors_of(emit(mutant.data).text)
        assert codes, mutant.title
        own = OWN_OPTIONS.fullmatch(".".join(map(str, mutant.path)))
        seen = (bool(codes & VISIBLE) or mutant.code == "E020") and own is None
        if seen == validator.is_valid(mutant.data):
            wrong.append((mutant.title, sorted(codes)))
    assert wrong == []


@pytest.fixture(scope="module")
def part_validator():
    return jsonschema.Draft202012Validator(json_schema(part=True))


@pytest.fixture
def part_errors_of(tmp_path, problems_of):
    """Return a function from an included file's text to the codes of all errors; what it leaves out stands elsewhere."""

    def errors(text):
        (tmp_path / "part.yaml").write_text(text)
        found = problems_of("version: 1\ninclude: part.yaml\n")
        return {each.code for each in found if each.severity == "error"}

    return errors


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}\n", "version: 1\n", "x-a: 1\n", "routes: []\n"])
def test_a_part_needs_no_version_nor_anything(text, part_validator, part_errors_of):
    assert part_errors_of(text) == set()
    assert part_validator.is_valid(data_of(text))


@pytest.mark.parametrize("text", ["version: 2\n", "version: true\n", "- a\n", "text\n", "routes: {}\n", "vresion: 1\n"])
def test_what_a_part_must_not_say(text, part_validator, part_errors_of):
    assert part_errors_of(text) & VISIBLE
    assert not part_validator.is_valid(data_of(text))


def test_the_schema_of_parts_and_the_loader_agree_on_the_whole_language(part_validator, part_errors_of):
    whole = {key: each for key, each in WHOLE.items() if key != "version"}
    assert part_errors_of(emit(whole).text) == set()
    assert part_validator.is_valid(whole) and part_validator.is_valid(WHOLE)
    wrong = []
    for at, mutant in enumerate(mutants()):
        if at % 4 and mutant.path[:1] != ("version",):
            continue  # a file with its version is the same to both schemas: these have none
        data = {key: each for key, each in mutant.data.items() if key != "version"}
        if mutant.path[:1] == ("version",):
            data = mutant.data
        codes = part_errors_of(emit(data).text)
        own = OWN_OPTIONS.fullmatch(".".join(map(str, mutant.path)))
        seen = (bool(codes & VISIBLE) or mutant.code == "E020") and own is None
        if seen == part_validator.is_valid(data):
            wrong.append((mutant.title, sorted(codes)))
    assert wrong == []


@pytest.mark.parametrize(
    ("code", "text"), [case[:2] for case in MISTAKES], ids=[f"{case[0]}-{at}" for at, case in enumerate(MISTAKES)]
)
def test_planted_mistakes_are_judged_alike(code, text, validator):
    if code in ("E002", "E003", "E004", "E005", "E006", "E007"):
        return  # YAML's own: there is no data to judge
    whole, _, _ = planted(text)
    refused = not validator.is_valid(data_of(whole))
    beyond = text in BEYOND or ("when: §" in text and code != "E011")  # an expression is a text to a schema
    assert refused == (code in VISIBLE and not beyond) or (code == "E020" and "key: §" in text)


def test_what_is_beyond_the_schema_is_a_mistake_all_the_same():
    assert {case[1] for case in MISTAKES} >= BEYOND
    assert set(CATALOGUE) >= VISIBLE


@pytest.mark.parametrize(
    ("definition", "kind"),
    [
        (None, schema.RuleFile),
        ("upstream-openai", schema.UpstreamRules),
        ("target", schema.TargetRules),
        ("route", schema.RouteRules),
    ],
)
def test_keys_of_later_versions_are_refused(definition, kind, validator):
    written = validator.schema if definition is None else validator.schema["$defs"][definition]
    assert not getattr(kind, "later", frozenset()) & set(written["properties"])
    assert written["additionalProperties"] is False and set(written["patternProperties"]) == {"^x-"}


def test_every_key_has_its_meaning(validator):
    """An editor shows the description when the pointer rests on a key."""
    definitions = {"the file": validator.schema, **validator.schema["$defs"]}
    own = {name: each for name, each in definitions.items() if not name.startswith(("middleware-", "Key", "upstream-"))}
    bare = [
        (name, key)
        for name, each in own.items()
        for key, schema_of_key in each.get("properties", {}).items()
        if "description" not in schema_of_key and not name.endswith("-match")
    ]
    assert bare == []


@pytest.mark.parametrize("name", registry.names("middlewares"))
def test_every_middleware_has_its_options(name, validator):
    defined = validator.schema["$defs"][f"middleware-{name}"]
    assert set(defined["properties"]) == {
        field.encode_name for field in msgspec.structs.fields(registry.middleware(name).Options)
    }


@pytest.mark.parametrize("name", registry.names("adapters"))
def test_every_adapter_has_its_options_beside_the_common_keys(name, validator):
    keys = set(validator.schema["$defs"][f"upstream-{name}"]["properties"])
    own = {field.encode_name for field in msgspec.structs.fields(registry.adapter(name).Options)}
    assert keys == own | {field.encode_name for field in msgspec.structs.fields(schema.UpstreamRules)}


def test_options_of_one_adapter_are_none_of_anothers(validator):
    def accepts(upstream):
        return validator.is_valid({"version": 1, "upstreams": {"a": upstream}})

    assert accepts({"adapter": "simulator", "delay": "1s"})
    assert not accepts({"adapter": "openai", "delay": "1s"})
    assert accepts({"adapter": "mine.own:Adapter", "whatever": 1, "timeout": {"connect": "1s"}})
    assert not accepts({"adapter": "mine.own:Adapter", "timeout": {"connect": 1}})


@pytest.mark.parametrize(
    ("item", "fits"),
    [
        ("retry", True),
        ("auth", False),  # it needs options
        ({"retry": None}, True),
        ({"retry": {"tries": 2}}, True),
        ({"retry": {"trise": 2}}, False),
        ({"retry": {}, "log": {}}, False),
        ({"retry": None, "tries": 3}, False),
        ({"chain": "base"}, True),
        ({"chain": ["base"]}, False),
        ({"use": "a.b:C", "with": {"x": 1}}, True),
        ({"use": "a.b:C", "wiht": {}}, False),
        ({"use": "auth"}, False),
        ("a.b:C", True),
        ({"a.b:C": {"x": 1}}, True),
        ({}, False),
        (["log"], False),
        (None, False),
    ],
)
def test_chain_items(item, fits, validator):
    assert validator.is_valid({"version": 1, "chains": {"a": [item], "base": []}}) is fits


@pytest.mark.parametrize(
    ("match", "fits"),
    [
        ({"principal.team": "x"}, False),
        ({"x-a": "b"}, False),
        ({"header.": "b"}, False),
        ({"model": {"exists": True}}, False),
        ({"header.a": {"exists": True}}, True),
        ({"model": [["a"]]}, False),
        ({"model": {"not": ["a", {"prefix": "b"}]}}, True),
        ({"metadata.a": [1, True, "x", {"has": 3}]}, True),
        ({"metadata.a": None}, False),
        ({"request.tokens": "5"}, False),
        ({"model": {"has": ""}}, False),
        ({}, True),
    ],
)
def test_matches(match, fits, validator, errors_of):
    route = {"name": "a", "match": match, "to": "s"}
    data = {"version": 1, "upstreams": {"s": {"adapter": "simulator"}}, "routes": [route]}
    assert validator.is_valid(data) is fits
    assert (errors_of(emit(data).text) == set()) is fits


class Base(msgspec.Struct):
    one: int = 1
    """The first."""


class Below(Base):
    two: int = 2
    """The
    second."""
    three: int = 3


def test_field_docs_are_found_and_inherited():
    assert field_docs(Below) == {"one": "The first.", "two": "The second."}


def test_field_docs_of_a_struct_without_source_are_none():
    assert field_docs(msgspec.defstruct("Made", [("a", int)])) == {}


def test_loading_rules_does_not_load_the_schemas_writer():
    code = "import sys; import headgate.gateway.rules as r; import headgate.gateway.cli.main\n"
    code += "print([name for name in ('json_schema', 'docstrings') if 'headgate.gateway.rules.' + name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
