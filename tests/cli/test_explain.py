"""``headgate explain``: every way in, what it says, its exit codes; that it opens no connection and shows no secret."""

import io
import json
import shlex
import socket
import sys

import pytest
from headgate.gateway.cli import asked
from headgate.gateway.cli.main import main
from headgate.gateway.server import intake

CALLER = "canary-of-the-caller"
PROVIDER = "canary-of-the-provider"
TEAM = "canary-in-a-header"
COOKIE = "canary-in-a-cookie"
QUERY = "canary-in-the-query"
CANARIES = (CALLER, PROVIDER, TEAM, COOKIE, QUERY)
RULES = """\
version: 1
server: {anonymous: allow, max_body: 2KiB, max_header: 1KiB}
upstreams:
  sim: {adapter: simulator}
  gpt:
    adapter: openai
    base_url: http://127.0.0.1:9/v1
    key: env:HEADGATE_TEST_KEY
    headers: {x-team: env:HEADGATE_TEST_TEAM, x-title: ours}
    chain: [retry]
  passing: {adapter: openai, base_url: "http://127.0.0.1:9/v1", credential: pass-through}
  maybe: {adapter: anthropic, base_url: "http://127.0.0.1:9", key: "env:HEADGATE_NOT_SET?"}
chains: {base: [log]}
targets:
  smart:
    select:
      - {match: {principal.team: red}, use: sim/x}
      - {when: 'request.tokens > 100000', use: maybe}
      - {split: [{use: gpt, weight: 95}, {use: gpt/next, weight: 5}], sticky: header.x-session-id}
    on_failure:
      - {kinds: [rate_limit, overloaded], use: sim/y}
      - {kinds: [connect], use: maybe}
routes:
  - {name: claude, match: {model: claude-*}, to: maybe}
  - {name: big, match: {request.tokens: {gt: 1000}, request.stream: true}, to: sim}
  - {name: keyed, match: {header.authorization: {prefix: Basic}, query.key: {exists: false}}, to: sim}
  - {name: mine, match: {header.x-mine: "1"}, to: passing}
  - {name: strict, match: {header.x-strict: "1"}, chain: base, to: gpt, loss: refuse}
  - {name: renamed, match: {model: short}, to: gpt/long}
  - {name: other, match: {model: "other-*"}, when: '"x-a" in header', to: sim}
  - {name: rest, match: {format: [openai.*, anthropic.messages], model: {not: nobody}}, chain: base, to: smart}
tests:
  - {name: does not pass, given: {model: m}, expect: {route: big}}
"""
MESSAGES = [{"role": "user", "content": "Hello"}]
OPENAI = {"model": "m", "messages": MESSAGES, "n": 1}
ANTHROPIC = {"model": "m", "max_tokens": 9, "top_k": 3, "system": "Be kind.", "messages": MESSAGES}
JSON = "-H 'content-type: application/json'"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADGATE_TEST_KEY", PROVIDER)
    monkeypatch.setenv("HEADGATE_TEST_TEAM", TEAM)
    monkeypatch.delenv("HEADGATE_NOT_SET", raising=False)
    (tmp_path / "routes.yaml").write_text(RULES)
    (tmp_path / "openai.json").write_text(json.dumps(OPENAI))
    (tmp_path / "anthropic.json").write_text(json.dumps(ANTHROPIC))
    return tmp_path


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("explain opened a connection")

    for name in ("connect", "connect_ex", "bind", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)


@pytest.fixture
def explained(capsys):
    """Return a function from arguments to exit code, what was printed, and what was complained about."""

    def run(arguments: str) -> tuple[int, str, str]:
        code = main(["explain", *shlex.split(arguments)])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


@pytest.fixture
def told(explained):
    """Return a function from arguments to the data for programs."""

    def run(arguments: str) -> dict:
        words = f"--json {arguments}"
        code, out, err = explained(words)
        data = json.loads(out)
        assert err == ""
        assert code == (0 if data["ok"] else 1)
        return data

    return run


def test_the_whole_story(explained):
    code, out, _ = explained("anthropic.json")
    assert code == 0
    assert out.splitlines() == [
        "request   anthropic.messages  m  /v1/messages  117 bytes, 29 tokens as rules count them",
        "passed by claude  off: HEADGATE_NOT_SET is not set; model: expected claude-*, got m",
        "          big  request.tokens: expected {gt: 1000}, got 29; request.stream: expected true, got false",
        "          keyed  header.authorization: expected Basic*, got nothing",
        "          mine  header.x-mine: expected 1, got nothing",
        "          strict  header.x-strict: expected 1, got nothing",
        "          renamed  model: expected short, got m",
        "          other  model: expected other-*, got m",
        "route     rest  (routes.yaml:31)",
        "chain     log → retry",
        "to        smart",
        "not taken smart.select[0]  principal.team: expected red, got nothing",
        "          smart.select[1]  off: HEADGATE_NOT_SET is not set; when does not hold: request.tokens > 100000",
        "chosen    smart.select[2] gpt",
        "split     smart.select[2]  gpt 95 %, gpt/next 5 %; shown is gpt, the heaviest; live calls draw by weight",
        "tries     1. gpt",
        "          2. sim/y  after overloaded, rate_limit within smart  (smart.on_failure[0])",
        "          3. maybe is off: HEADGATE_NOT_SET is not set  after connect within smart  (smart.on_failure[1])",
        "upstream  gpt (openai)",
        "model     m",
        "sends     POST http://127.0.0.1:9/v1/chat/completions",
        "          accept: application/json",
        "          accept-encoding: identity",
        "          authorization: ***",
        "          content-type: application/json",
        "          user-agent: headgate",
        "          x-request-id: req_explain",
        "          x-team: ***",
        "          x-title: ours",
        "body      written anew in the upstream's format:",
        "          --- caller",
        "          +++ upstream",
        "          @@ -1,12 +1,14 @@",
        "           {",
        '             "model": "m",',
        '          -  "max_tokens": 9,',
        '          -  "top_k": 3,',
        '          -  "system": "Be kind.",',
        '             "messages": [',
        "          +    {",
        '          +      "role": "system",',
        '          +      "content": "Be kind."',
        "          +    },",
        "               {",
        '                 "role": "user",',
        '                 "content": "Hello"',
        "               }",
        "          -  ]",
        "          +  ],",
        '          +  "max_completion_tokens": 9',
        "           }",
        "loss      lost top_k: top_k (unknown to Chat Completions)",
    ]


BODY = json.dumps(OPENAI)
IN_CURL = shlex.quote(BODY)
RECORDED = json.dumps({"method": "POST", "path": "/v1/chat/completions?a=b", "headers": {"X-A": "1"}, "body": OPENAI})


@pytest.mark.parametrize(
    "arguments",
    [
        "openai.json",
        "routes.yaml openai.json",
        "openai.json routes.yaml",
        "openai.json --format openai.chat",
        "openai.json --path /v1/chat/completions",
        "-",
        "recorded.json",
        f"--curl curl http://x/v1/chat/completions {JSON} -d {IN_CURL}",
        f"--curl curl http://x/v1/chat/completions --json {IN_CURL}",
        f"--curl curl -sSN -XPOST x/chat/completions {JSON} --data-binary @openai.json",
        f"--curl curl --url http://x/v1/chat/completions --request POST {JSON} --data-raw {IN_CURL} -o /dev/null",
        "--curl " + shlex.quote(f"curl http://x/v1/chat/completions \\\n {JSON} \\\n --data {IN_CURL}"),
    ],
)
def test_every_way_in_leads_to_the_same_decision(told, here, monkeypatch, arguments):
    (here / "recorded.json").write_text(RECORDED)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(BODY.encode())))
    data = told(arguments)
    assert (data["request"]["format"], data["request"]["model"]) == ("openai.chat", "m")
    assert (data["route"]["name"], data["upstream"], data["model"]) == ("rest", "gpt", "m")
    assert data["sends"]["as_it_came"] is True
    assert data["sends"]["diff"] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--model m", {"route": "rest", "chain": ["log", "retry"], "chosen": ["smart.select[2] gpt"]}),
        ("--model m --team red", {"upstream": "sim", "model": "x", "in_process": True, "sends": None}),
        ("--model m --branch gpt/next", {"model": "next", "chosen": ["smart.select[2] gpt/next"]}),
        ("--model m --fail rate_limit", {"upstream": "sim", "model": "y", "tried": ["gpt"]}),
        ("--model m --stream --tokens 2000", {"route": "big", "upstream": "sim"}),
        ("--model m --tokens 200000 --all-on", {"upstream": "maybe"}),
        ("--model claude-1 --all-on", {"route": "claude", "chain": []}),
        ("--model other-1 --header X-A:1", {"route": "other"}),
        ("--model short", {"route": "renamed", "target": "gpt/long", "model": "long", "chosen": []}),
        ("--path /v1/messages --model m", {"route": "rest"}),
        ("--format anthropic.messages --tools --image --metadata user_id=u", {"route": "rest"}),
        ("--format openai.responses --model m --stream", {"route": "rest"}),
        ("--format gemini --model m --stream --tokens 2000", {"route": "big"}),
        ("--path /llm/v1beta/models/a/b:streamGenerateContent --tokens 2000", {"route": "big", "model": "a/b"}),
        ("--path /api/chat --stream --tokens 2000", {"route": "big"}),
    ],
)
def test_options_make_requests(told, arguments, expected):
    data = told(arguments)
    assert data["ok"]
    data["route"] = data["route"]["name"]
    assert {key: data[key] for key in expected} == expected


def test_a_renamed_model_is_all_that_changes(explained):
    _, out, _ = explained("--model short")
    assert out[out.index("body ") :].splitlines()[:8] == [
        "body      the caller's bytes pass but for these members:",
        "          --- caller",
        "          +++ upstream",
        "          @@ -1,4 +1,4 @@",
        "           {",
        '          -  "model": "short",',
        '          +  "model": "long",',
        '             "messages": [',
    ]


@pytest.mark.parametrize(
    ("body", "format"),
    [
        ({"model": "m", "input": "Hello"}, "openai.responses"),
        ({"model": "m", "prompt": "Hello", "max_tokens": 5}, "openai.completions"),
        ({"model": "m", "prompt": "Hello", "options": {}}, "ollama.generate"),
        ({"model": "m", "messages": MESSAGES, "options": {"num_ctx": 9}}, "ollama.chat"),
        ({"model": "m", "contents": [{"parts": [{"text": "Hello"}]}]}, "gemini"),
        ({"model": "m", "prompt": "Hello"}, None),
        ({"model": "m"}, None),
    ],
)
def test_a_body_tells_its_format(here, told, explained, body, format):
    (here / "body.json").write_text(json.dumps(body))
    if format is None:
        assert "does not tell its format" in explained("body.json")[2]
    else:
        data = told("body.json --header x-mine:1")
        assert (data["request"]["format"], data["model"]) == (format, "m")
        (here / "plain.json").write_text(json.dumps({"path": "/nowhere", "body": body}))
        assert "nothing is served at POST /nowhere" in explained("plain.json")[2]


def test_a_bound_request_is_shown_where_it_is_bound(told):
    data = told("--model m --header x-session-id:abc")
    (split,) = data["splits"]
    assert split["bound_by"] == "header.x-session-id"
    assert split["branches"] == [{"use": "gpt", "weight": 95.0}, {"use": "gpt/next", "weight": 5.0}]
    assert data["chosen"] == [f"smart.select[2] {split['shown']}"]


def test_a_when_that_does_not_hold_is_a_reason(told):
    (passed,) = [each for each in told("--model other-1")["passed_by"] if each["name"] == "other"]
    assert passed["unmet"] == [{"fact": "when", "expected": '"x-a" in header', "got": None}]


def test_a_route_that_refuses_losses_says_which(explained, told):
    code, out, _ = explained("anthropic.json --header x-strict:1")
    assert code == 1
    assert "loss      lost top_k: top_k (unknown to Chat Completions)" in out
    assert "refused   this route refuses what would be lost" in out
    assert "sends" not in out
    data = told("anthropic.json --header x-strict:1")
    assert (data["refusal"]["kind"], data["refusal"]["status"], data["sends"]) == ("unsupported", 400, None)
    assert [each["path"] for each in data["loss"]] == ["top_k"]


def test_no_route(explained):
    code, out, _ = explained("--model nobody")
    assert code == 1
    assert "rest  model: expected {not: nobody}, got nobody" in out
    assert "refused   no route serves the model 'nobody' in the format openai.chat  (not_found, HTTP 404)" in out


# -- what is no conversation

APART = """\
version: 1
server: {anonymous: allow, max_body: 1KiB, max_upload: 4KiB}
upstreams:
  sim: {adapter: simulator}
  openai: {adapter: openai, key: env:HEADGATE_TEST_KEY}
  claude: {adapter: anthropic, key: env:HEADGATE_TEST_KEY}
routes:
  - {name: sim, match: {model: sim}, to: sim}
  - {name: claude, match: {format: "anthropic.*"}, to: claude}
  - {name: files, match: {path: "/v1/files*"}, to: openai}
  - {name: renamed, match: {model: whisper}, to: openai/other}
  - {name: rest, to: openai}
"""
IN_FORM = '--b\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper\r\n--b--\r\n'
FORM_TYPE = {"content-type": "multipart/form-data; boundary=b"}


@pytest.fixture
def apart(here):
    """Say what would become of a recorded request."""
    (here / "apart.yaml").write_text(APART)

    def explained(capsys, request):
        (here / "recorded.json").write_text(json.dumps({"body": "", **request}))
        code = main(["explain", "--json", "apart.yaml", "recorded.json"])
        return code, json.loads(capsys.readouterr().out)

    return explained


@pytest.mark.parametrize(
    ("request_", "route", "sent"),
    [
        ({"method": "GET", "path": "/v1/files?a=b"}, "files", "GET https://api.openai.com/v1/files?a=b"),
        ({"method": "DELETE", "path": "/v1/files/f"}, "files", "DELETE https://api.openai.com/v1/files/f"),
        ({"path": "/v1/files", "body": "x" * 2000}, "files", "POST https://api.openai.com/v1/files"),
        (
            {"method": "POST", "path": "/audio/transcriptions", "headers": FORM_TYPE, "body": IN_FORM},
            "renamed",
            "POST https://api.openai.com/v1/audio/transcriptions",
        ),
        (
            {"method": "GET", "path": "/v1/realtime?model=whisper", "headers": {"upgrade": "websocket"}},
            "renamed",
            "GET https://api.openai.com/v1/realtime?model=other",
        ),
        (
            {"path": "/v1/messages/count_tokens", "body": {"model": "m", "messages": MESSAGES}},
            "claude",
            "POST https://api.anthropic.com/v1/messages/count_tokens",
        ),
        ({"path": "/v1/messages/count_tokens", "body": {"model": "sim", "messages": MESSAGES}}, "sim", None),
        (
            {"path": "/v1/embeddings?v=1", "body": {"model": "m", "input": "a"}},
            "rest",
            "POST https://api.openai.com/v1/embeddings?v=1",
        ),
    ],
)
def test_what_is_no_conversation(apart, capsys, request_, route, sent):
    code, told = apart(capsys, request_)
    assert (code, told["route"]["name"]) == (0, route)
    upstream = told["sends"]
    assert (None if upstream is None else f"{upstream['method']} {upstream['url']}") == sent


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"method": "GET", "path": "/v1/batches"}, "no route serves /v1/batches: it is passed on as it comes"),
        ({"method": "GET", "path": "/v1/organization/users"}, "administration of an account"),
        ({"path": "/v1/files", "body": "x" * 5000}, "larger than 4096 bytes (server.max_upload)"),
        ({"path": "/v1/files//a"}, "empty, relative or encoded"),
        ({"method": "GET", "path": "/v1/embeddings"}, "calls are sent with POST"),
    ],
)
def test_what_is_no_conversation_and_refused(apart, capsys, request_, said):
    code, told = apart(capsys, request_)
    assert code == 1 and said in (told.get("error") or told["refusal"]["message"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("gone.json", "cannot read gone.json: No such file"),
        ("no.json", "this is no JSON object"),
        ("list.json", "this is no JSON object"),
        ("plain.json", "does not tell its format: say --format"),
        ("plain.json --format openai.chatt", "openai.chatt"),
        ("nomodel.json --format openai.chat", "model"),
        ("openai.json --path /v1/nowhere", "nothing is served at POST /v1/nowhere"),
        ("openai.json --path /v1/messages --format openai.chat", "is where anthropic.messages is served"),
        ("large.json --format openai.chat", "larger than 2048 bytes (server.max_body)"),
        (f"--model m --header x-long:{'x' * 1100}", "larger than 1024 bytes (server.max_header)"),
        ("--model m --header content-type:text/plain", "content-type 'text/plain' is not served"),
        ("--model m --header x-api-key:a --header x-api-key:b", "the header x-api-key is there twice"),
        (f"--curl curl http://x/v1/chat/completions -d {IN_CURL}", "curl -d says so by itself"),
        ("--curl curl http://x/v1/chat/completions", "GET is not served"),
        ("--curl curl --form a=b http://x/v1/messages", "option --form is not understood"),
        ("--curl curl -sF a=b http://x/v1/messages", "option -F is not understood"),
        ("--curl curl -H", "needs a value"),
        ("--curl curl -H nocolon http://x", "a header needs a colon"),
        ("--curl curl -d @gone http://x", "cannot read the file of curl's --data"),
        ("--curl curl a b", "there are 2 URLs"),
        ("--curl curl -s", "there is no URL"),
        ('--curl "curl \'a"', "No closing quotation"),
    ],
)
def test_what_is_no_request(explained, here, arguments, said):
    (here / "no.json").write_text("{")
    (here / "list.json").write_text("[]")
    (here / "plain.json").write_text(json.dumps({"model": "m", "messages": MESSAGES}))
    (here / "nomodel.json").write_text(json.dumps({"messages": MESSAGES}))
    (here / "large.json").write_text(json.dumps({**OPENAI, "user": "u" * 3000}))
    code, out, err = explained(arguments)
    assert (code, out) == (1, "")
    assert said in err
    code, out, err = explained(f"--json {arguments}")
    assert (code, err) == (1, "")
    assert said in json.loads(out)["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "a.json b.json",
        "a.yaml b.yaml",
        "openai.json --curl curl x",
        "openai.json --model m",
        "--model m --tokens many",
        "--model m --header nocolon",
        "--model m --query noequals",
        "--model m --fail sometimes",
    ],
)
def test_wrong_usage(arguments, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["explain", *shlex.split(arguments)])
    assert raised.value.code == 2
    assert "usage: headgate explain" in capsys.readouterr().err


def test_a_rule_file_with_mistakes(here, explained):
    (here / "bad.yaml").write_text(RULES.replace("to: passing", "to: passin"))
    code, out, err = explained("bad.yaml --model m")
    assert (code, out) == (1, "")
    assert "E033" in err
    code, out, _ = explained("bad.yaml --model m --json")
    assert code == 1
    assert "E033" in [problem["code"] for problem in json.loads(out)["problems"]]


SECRETS = {
    "openai": f"--header 'authorization: Bearer {CALLER}' --header cookie:{COOKIE} --query key={QUERY} --model m",
    "basic": f"--curl curl -u me:{CALLER} -b {COOKIE} http://x/v1/chat/completions?key={QUERY} --json {IN_CURL}",
    "in the url": f"--curl curl http://me:{CALLER}@x/v1/chat/completions --json {IN_CURL}",
    "bearer": f"--curl curl --oauth2-bearer {CALLER} http://x/v1/chat/completions --json {IN_CURL}",
    "passed through": f"--curl curl -H 'x-mine: 1' -H 'x-api-key: {CALLER}' x/v1/chat/completions --json {IN_CURL}",
    "recorded": "secret.json",
    "strict": "secret.json --header x-strict:1",
    "repeated in the body": "repeated.json",
    "as a model": f"--model {PROVIDER} --header x-api-key:{CALLER}",
    "a bad request": f"--curl curl -H 'x-api-key: {CALLER}' http://x/v1/nowhere --json {IN_CURL}",
    "a bad option": f"--curl curl -H 'x-api-key: {CALLER}' --what={CALLER} http://x/v1/messages",
    "no colon": f"--curl curl -H {CALLER} http://x/v1/messages",
}


@pytest.mark.parametrize("form", ["", "--json "])
@pytest.mark.parametrize("name", SECRETS)
def test_no_secret_is_shown(explained, here, name, form):
    headers = {"X-Api-Key": CALLER, "Cookie": f"session={COOKIE}", "Anthropic-Version": "2023-06-01"}
    recorded = {"path": f"/v1/messages?key={QUERY}&api_key={QUERY}", "headers": headers, "body": ANTHROPIC}
    (here / "secret.json").write_text(json.dumps(recorded))
    said = f"My key is {CALLER}, yours is {PROVIDER}, and sk-abcdefghijklmnop1234 is one more."
    body = {**ANTHROPIC, "system": said, "metadata": {"user_id": CALLER}}
    (here / "repeated.json").write_text(json.dumps({**recorded, "body": body}))
    _, out, err = explained(form + SECRETS[name])
    assert out or err
    shown = out + err
    assert [canary for canary in CANARIES if canary in shown] == []
    assert "sk-abcdefghijklmnop1234" not in shown
    assert "bWU6" not in shown  # me: in base64


@pytest.mark.parametrize("at", range(60, 200, 7))
def test_half_a_secret_is_not_left_where_a_long_text_is_cut(explained, here, at):
    body = {**ANTHROPIC, "system": f"{'w' * at}{PROVIDER}{'w' * 200}"}
    (here / "long.json").write_text(json.dumps(body))
    for arguments in ("long.json", "--json long.json", f"--model {'w' * at}{PROVIDER}{'w' * 99}"):
        _, out, _ = explained(arguments)
        assert "canary" not in out


def test_a_query_that_passes_shows_no_secret(told, explained):
    arguments = "openai.json --query 'sig=a b+c' --query signature=xyz --query beta=true"
    assert told(arguments)["sends"]["url"].partition("?")[2] == "sig=***&signature=***&beta=true"


def test_headers_that_stand_once_are_those_of_the_server():
    assert asked._SINGLE == intake._SINGLE


def test_a_try_that_fails_is_followed_to_the_end(explained):
    code, out, _ = explained("--model m --fail rate_limit --fail overloaded")
    assert code == 1
    assert "tried     gpt fails\n          sim/y fails\n" in out
    assert "refused   nothing is left to try after overloaded  (overloaded, HTTP 503)" in out


def test_nothing_but_the_decision_needs_a_key(explained, monkeypatch):
    monkeypatch.delenv("HEADGATE_TEST_KEY")
    monkeypatch.delenv("HEADGATE_TEST_TEAM")
    code, out, _ = explained("openai.json")
    assert code == 0
    assert "authorization: ***" in out
    assert "stand-in" not in out
