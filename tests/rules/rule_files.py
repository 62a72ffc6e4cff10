"""Rule files, and requests for them, made up by hypothesis."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

MODELS = ("a", "b", "claude-1", "gpt-2")
TEAMS = (None, "red", "blue")
TAGS = ("batch", "beta")
HEADERS = ("x-a", "x-b")
WORDS = ("one", "two", "three")
KINDS = ("rate_limit", "unavailable", "overloaded", "upstream_error", "connect")
OFF = "env:HEADGATE_NOT_SET?"

CONDITIONS: dict[str, st.SearchStrategy[Any]] = {
    "model": st.sampled_from(["a", "b", "claude-*", ["a", "gpt-*"], {"not": "a"}, {"prefix": "c"}, {"suffix": "2"}]),
    "format": st.sampled_from(["openai.chat", "anthropic.*", ["openai.chat", "anthropic.messages"]]),
    "path": st.sampled_from(["/v1/*", "*/messages", {"not": "/v1/messages"}]),
    "header.x-a": st.sampled_from(["one", "T*", {"exists": True}, {"exists": False}, {"not": ["one", "two"]}]),
    "header.x-b": st.sampled_from(["three", {"has": "w"}, {"not": "one"}]),
    "query.q": st.sampled_from(["one", {"exists": True}, {"prefix": "t"}]),
    "metadata.user_id": st.sampled_from(["one", {"not": "two"}, {"exists": True}]),
    "request.tokens": st.sampled_from([{"gt": 40}, {"lt": 60}, {"gt": 20, "lt": 200}]),
    "request.stream": st.booleans(),
    "request.tools": st.booleans(),
    "request.has_image": st.booleans(),
}
WHO: dict[str, st.SearchStrategy[Any]] = {
    "principal.team": st.sampled_from(["red", {"not": "red"}, {"exists": False}]),
    "principal.tags": st.sampled_from([{"has": "batch"}, {"not": {"has": "beta"}}]),
    "principal.key": st.sampled_from(["one", {"not": "two"}]),
}


@st.composite
def matches(draw: st.DrawFn, facts: dict[str, st.SearchStrategy[Any]], least: int, most: int) -> dict[str, Any]:
    """A ``match`` of so many facts."""
    names = draw(st.lists(st.sampled_from(sorted(facts)), min_size=least, max_size=most, unique=True))
    return {name: draw(facts[name]) for name in names}


@st.composite
def upstreams(draw: st.DrawFn) -> dict[str, Any]:
    """Four simulators at most: one that is on and answers is among them."""
    scripts = st.sampled_from([[], [], ["error 429"], ["error 503"], ["fail 0 overloaded"], ["error 500"]])
    chains = st.sampled_from([None, ["log"], [{"use": "rule_parts:Mark"}, {"use": "rule_parts:Counting"}]])
    found: dict[str, Any] = {"u0": {"adapter": "simulator"}}
    for name in ("u1", "u2", "u3")[: draw(st.integers(0, 3))]:
        rules: dict[str, Any] = {"adapter": "simulator", "script": draw(scripts)}
        if (chain := draw(chains)) is not None:
            rules["chain"] = chain
        if draw(st.integers(0, 3)) == 0:
            rules["key"] = OFF
        found[name] = rules
    return found


@st.composite
def targets(draw: st.DrawFn, names: list[str]) -> dict[str, Any]:
    """Targets that choose between upstreams, and the later ones between earlier targets too."""
    found: dict[str, Any] = {}
    aims = list(names)
    for name in ("t0", "t1", "t2")[: draw(st.integers(0, 3))]:
        use = st.sampled_from([each for aim in aims for each in ([aim] if aim[0] == "t" else [aim, f"{aim}/m1"])])
        count = draw(st.integers(1, 3))
        # what stands after a case without a match would never be reached
        cases = [draw(case(use, int(at < count - 1))) for at in range(count)]
        failures = st.fixed_dictionaries(
            {"kinds": st.lists(st.sampled_from(KINDS), min_size=1, max_size=3, unique=True), "use": use}
        )
        found[name] = {"select": cases, "on_failure": draw(st.lists(failures, max_size=3))}
        if draw(st.integers(0, 2)) == 0:
            found[name]["hedge"] = {"after": "60s", "use": draw(use)}
        if draw(st.integers(0, 2)) == 0:
            found[name]["shadow"] = {"use": draw(use), "share": "100%"}
        aims.append(name)
    return found


@st.composite
def case(draw: st.DrawFn, use: st.SearchStrategy[str], least: int) -> dict[str, Any]:
    """One case of a target."""
    found: dict[str, Any] = {}
    if match := draw(matches({**CONDITIONS, **WHO}, least, 2)):
        found["match"] = match
    if draw(st.booleans()):
        return {**found, "use": draw(use)}
    shares = draw(st.lists(use, min_size=1, max_size=3, unique=True))
    found["split"] = [{"use": share, "weight": draw(st.sampled_from([1, 2, 5, 95]))} for share in shares]
    sticky = draw(st.sampled_from([None, "header.x-a", "principal.key", "principal.team", "model"]))
    return found if sticky is None else {**found, "sticky": sticky}


@st.composite
def rule_files(draw: st.DrawFn) -> str:
    """The text of a rule file, which may still have a rule that is never reached."""
    found = draw(upstreams())
    chosen = draw(targets(list(found)))
    to = st.sampled_from([*found, *chosen, "u0/m3"])
    routes = []
    count = draw(st.integers(1, 6))
    for at in range(count):
        route: dict[str, Any] = {"name": f"r{at}", "to": draw(to)}
        if match := draw(matches(CONDITIONS, int(at < count - 1), 3)):
            route["match"] = match
        if draw(st.booleans()):
            route["chain"] = "base"
        routes.append(route)
    rules = {"version": 1, "upstreams": found, "chains": {"base": [{"use": "rule_parts:Mark"}]}, "routes": routes}
    return json.dumps({**rules, "targets": chosen} if chosen else rules)


@st.composite
def asks(draw: st.DrawFn) -> dict[str, Any]:
    """A request: format, path, headers, query, body, and who sends it."""
    format = draw(st.sampled_from(["openai.chat", "anthropic.messages"]))
    openai = format == "openai.chat"
    content: Any = "w" * draw(st.sampled_from([1, 100, 400]))
    if draw(st.integers(0, 3)) == 0:
        image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}}
        source = {"type": "base64", "media_type": "image/png", "data": "aGk="}
        content = [{"type": "text", "text": content}, image if openai else {"type": "image", "source": source}]
    body: dict[str, Any] = {"model": draw(st.sampled_from(MODELS)), "messages": [{"role": "user", "content": content}]}
    if not openai:
        body["max_tokens"] = 9
    if draw(st.booleans()):
        body["stream"] = draw(st.booleans())
    if draw(st.booleans()):
        function = {"name": "f", "parameters": {"type": "object"}}
        tool = (
            {"type": "function", "function": function} if openai else {"name": "f", "input_schema": {"type": "object"}}
        )
        body["tools"] = draw(st.sampled_from([[], [tool]]))
    if draw(st.booleans()):
        body["metadata"] = {"user_id": draw(st.sampled_from(WORDS))}
    texts = st.sampled_from([*WORDS, "Three"])
    return {
        "format": format,
        "path": "/v1/chat/completions" if openai else "/v1/messages",
        "headers": draw(st.dictionaries(st.sampled_from(HEADERS), texts)),
        "query": draw(st.dictionaries(st.just("q"), texts)),
        "body": body,
        "principal": {
            "key": draw(st.sampled_from(WORDS)),
            "team": draw(st.sampled_from(TEAMS)),
            "tags": draw(st.lists(st.sampled_from(TAGS), unique=True)),
        },
    }
