"""Planted mistakes: each is found at its place, told with what to do, and alone. The mark § stands right before the place."""

import copy
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest
from headgate.gateway import rules
from headgate.gateway.rules.problems import CATALOGUE
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

KEY = "sk-ant-api03-aaaabbbbccccddddeeee"

SIM = "upstreams:\n  sim: {adapter: simulator}\n"
ROUTE = "routes:\n  - {name: all, to: sim}\n"

# code, the file, part of the message, part of the hint
MISTAKES = [
    ("E002", "version: 1\nx-a: [a\n§", "a flow sequence that begins on line 2", "bracket"),
    ("E002", "server:\n§\tlisten: 127.0.0.1:80\n", "cannot start any token", "spaces"),
    ("E002", "x-a: §'b\n", "quoted scalar", "quote"),
    ("E002", "routes:\n  - {name: all, match: {model: §*}, to: sim}\n", "alphabetic", "quoted"),
    ("E003", "server:\n  workers: §!!int 2\n", "tag", "leave it out"),
    ("E003", f"{SIM}{ROUTE}§---\na: b\n", "second document", "---"),
    ("E003", "x-note:\n  §8080: a\n", "8080 is not a text", "quote"),
    ("E004", f"{SIM}{ROUTE}§upstreams: {{}}\n", '"upstreams" is written twice; first on line 2', "remove"),
    ("E004", "routes: [{name: a, match: {header.X-A: b, §header.x-a: c}, to: sim}]\n", "header.x-a", "case"),
    ("E005", "routes: [{name: a, match: {request.stream: §on}, to: sim}]\n", "on is ambiguous", "true or false"),
    ("E005", "chains: {a: [retry: {§on: [cut]}]}\n", "on is ambiguous", 'a key too, goes in quotes: "on"'),
    ("E005", "defaults: {timeout: {connect: §1:30}}\n", "base 60", "90s"),
    ("E005", "routes: [{name: a, match: {request.tokens: {gt: §1e5}}, to: sim}]\n", "1e5", "write the number out"),
    ("E005", "server: {workers: §0o17}\n", "base", "decimal"),
    ("E005", "server: {workers: §1_000}\n", "1_000", "underscores"),
    (
        "E005",
        "upstreams:\n  sim: {adapter: simulator, headers: {anthropic-version: §2023-06-01}}\n",
        "date",
        "quote",
    ),
    ("E006", "x-a: " + "[" * 40 + "§[" + "]" * 41 + "\n", "deeper than 40", ""),
    ("E007", "routes: [{name: a, match: {model: §*gpt}, to: sim}]\n", "&gpt", 'quoted: "*gpt"'),
    ("E007", "x-a: &a [1]\nserver:\n  <<: §*a\n", "", ""),
    ("E008", "include: §nowhere.yaml\n", "there is no file", "start at the file"),
    ("E009", "include: [§routes.yaml]\n", "routes.yaml includes itself", "take one"),
    ("E011", "include: [§4]\n", "expected a path, got a number", "parts/*.yaml"),
    ("E011", "include: §a/**/b.yaml\n", "** is not read", "parts/*/*.yaml"),
    ("W105", f"include: §parts/*.yaml\n{SIM}{ROUTE}", "no file matches parts/*.yaml", "start at the file"),
    (
        "W106",
        f"{SIM}routes: [{{name: a, chain: [log, §cache, redact], to: sim}}]\n",
        "in front of redact",
        "behind redact",
    ),
    (
        "W106",
        "chains: {a: [§log: {bodies: full}, redact]}\nroutes: [{name: a, chain: a, to: sim}]\n",
        "keeps",
        "redact",
    ),
    ("W106", "routes: [{name: a, chain: [§trace: {content: true}, redact], to: sim}]\n", "trace stands", "redact"),
    (
        "W106",
        "upstreams:\n  sim: {adapter: simulator, chain: [retry, redact]}\nroutes: [{name: a, chain: [§cache], to: sim}]\n",
        "cache stands in front of redact",
        "behind",
    ),
    (
        "W106",
        "routes: [{name: a, chain: [§limit: {requests: 1/s}, auth: {keys: [{name: k, key: 'file:routes.yaml'}]}], to: sim}]\n",
        "does not know yet who calls",
        "behind auth",
    ),
    ("E010", f"{SIM}routes:\n  - §match: {{model: a}}\n    to: sim\n", 'routes[0] needs the key "name"', ""),
    ("E010", "upstreams:\n  sim: §{}\n", 'upstreams.sim needs the key "adapter"', ""),
    ("E011", "defaults: {tokens: §exactly}\n", "defaults.tokens", '"exact"'),
    ("E012", "routes: [{name: a, §tokens: exact, to: sim}]\n", '"tokens"', ""),
    ("E011", "server: {workers: §many}\n", "server.workers: expected a whole number, got a text", ""),
    ("E011", "server: {workers: §0}\n", "server.workers", ">= 1"),
    ("E011", "server: {keep_alive: §15}\n", "server.keep_alive: expected a duration", "30s"),
    ("E011", "server: {max_body: §5 potatoes}\n", "server.max_body: expected a size", "10MiB"),
    ("E011", "server: {drain: 30s, keep_alive: §0s}\n", "keep_alive must be above zero", ""),
    ("E011", "server: {trusted_proxies: §[10.0.0.0/99]}\n", "trusted_proxies", ""),
    ("E011", "server: {cors: {origins: §[app.example]}}\n", "origins", "https://app.example"),
    ("E011", "server: {cors: {origins: §[]}}\n", "server.cors.origins", "length"),
    ("E011", "server: {response_headers: §[x-powered-by]}\n", "none of ours", ""),
    ("E011", "server: {tls: {cert: §nowhere.pem, key: routes.yaml}}\n", "server.tls.cert", "no file"),
    ("E011", "defaults: {loss: §ignroe}\n", 'one of report, refuse, ignore, got "ignroe"', '"ignore"'),
    ("E011", "server: {anonymous: §true}\n", "server.anonymous: expected one of allow, refuse, got true", "known"),
    ("E011", "chains: {a: [retry: {'on': [connect, §rate_limits]}]}\n", "a[0] retry.on[1]", '"rate_limit"'),
    ("E011", "defaults: {timeout: {connect: §-1}}\n", "a duration", ""),
    ("E011", "upstreams: §[sim]\nroutes: []\n", "upstreams: expected a mapping, got a list", ""),
    ("E011", "upstreams:\n  sim: §simulator\n", "upstreams.sim: expected a mapping, got a text", ""),
    ("E011", "upstreams:\n  sim: {adapter: simulator, base_url: §localhost:9}\n", "base_url", "http(s)://"),
    ("E011", "upstreams:\n  sim: {adapter: simulator, pool: {max_connections: §0}}\n", "pool.max_connections", ""),
    ("E011", "upstreams:\n  sim: {adapter: simulator, pool: {proxy: §nonsense}}\n", "sim.pool: proxy", ""),
    ("E011", "upstreams:\n  sim: {adapter: simulator, pool: {ca_bundle: §no.pem}}\n", "sim.pool.ca_bundle", "No such"),
    ("E011", "upstreams:\n  sim: {adapter: simulator, headers: {§host: a}}\n", "headers.host", "transport sets it"),
    ("E011", 'upstreams:\n  sim: {adapter: simulator, headers: {x-a: §"a\\nb: c"}}\n', "headers.x-a", "one line"),
    ("E011", f"{SIM}routes: §{{name: all}}\n", "routes: expected a list, got a mapping", ""),
    ("E011", f"{SIM}routes: [{{name: a, to: §sim/}}]\n", "no model after the slash", "sim/MODEL"),
    ("E011", "routes: [{name: a, match: {request.tokens: §many}, to: sim}]\n", "request.tokens", "number"),
    ("E011", "routes: [{name: a, match: {query.n: §5}, to: sim}]\n", "query.n: got a number", "quote it"),
    ("E011", "routes: [{name: a, match: {request.tokens: §'> 1000'}, to: sim}]\n", "got a text", "{gt: 1000}"),
    ("E011", "routes: [{name: a, match: {model: §[]}, to: sim}]\n", "matches nothing", ""),
    ("E011", "routes: [{name: a, match: {model: §}, to: sim}]\n", "nothing to compare with", ""),
    ("E011", "routes: [{name: a, match: {model: {has: §''}}, to: sim}]\n", "empty text", "exists: true"),
    (
        "E011",
        'chains:\n  a: [{use: "rule_parts:Mark", with: {limits: {tries: §99}}}]\n',
        "limits.tries",
        "<= 9",
    ),
    ("E011", "targets: {t: {select: [use: sim], hedge: {after: §2, use: sim}}}\n", "targets.t.hedge.after", "30s"),
    ("E011", "targets: {t: {select: [use: sim], hedge: {after: 2s, use: sim, max_extra: §5}}}\n", "max_extra", "5%"),
    ("E011", "targets: {t: {select: [use: sim], hedge: {after: 2s, use: sim, max_extra: §0%}}}\n", "max_extra", "5%"),
    ("E011", "targets: {t: {select: [use: sim], shadow: {use: sim, share: §101%}}}\n", "targets.t.shadow.share", "5%"),
    ("E010", "targets: {t: {select: [use: sim], hedge: §{use: sim}}}\n", 'targets.t.hedge needs the key "after"', ""),
    ("E012", "targets: {t: {select: [use: sim], shadow: {use: sim, §part: 1%}}}\n", '"part" in targets.t.shadow', ""),
    ("E033", "targets: {t: {select: [use: sim], hedge: {after: 1s, use: §smi}}}\n", "targets.t.hedge.use", '"sim"'),
    ("E036", "targets: {t: {select: [use: sim], shadow: {use: §t}}}\n", "leads to itself", ""),
    ("E012", "§sever: {}\n", 'unknown key "sever"', '"server"'),
    ("E012", "upstreams:\n  sim: {adapter: simulator, §timeuot: {}}\n", '"timeuot" in upstreams.sim', '"timeout"'),
    ("E012", "upstreams:\n  sim: {adapter: simulator, §dealy: 1s}\n", '"dealy" in upstreams.sim', '"delay"'),
    ("E012", "defaults: {timeout: {§frist_token: 5s}}\n", "defaults.timeout", '"first_token"'),
    ("E012", "chains: {a: [log: {§too: stderr}]}\n", '"too" in chains.a[0] log', '"to"'),
    ("E012", 'chains: {a: [{use: "rule_parts:Mark", §wiht: {}}]}\n', '"wiht"', '"with"'),
    (
        "E012",
        'chains:\n  a: [{use: "rule_parts:Mark", with: {steps: [{}, {§trise: 1}]}}]\n',
        '"trise" in chains.a[0] rule_parts:Mark.steps[1]',
        '"tries"',
    ),
    ("E011", "prices: {models: {m: {input: §-1, output: 2}}}\n", "prices.models.m.input", ">= 0"),
    ("E010", "prices: {models: {m: §{output: 2}}}\n", 'prices.models.m needs the key "input"', ""),
    ("E011", "prices: {catalog: §openai}\n", "prices.catalog", "true or false"),
    ("E012", "prices: {models: {m: {input: 1, §cached: 2}}}\n", '"cached"', ""),
    ("E065", "routes: [{name: a, chain: [{limit: {budget: §20 USD/day}}], to: sim}]\n", "no prices", "prices"),
    (
        "E065",
        "prices: {models: {m: {input: 1}}}\nupstreams:\n"
        "  sim: {adapter: simulator, chain: §[{limit: {budget: 20 USD/day}}]}\n",
        "upstreams.sim.chain",
        "route",
    ),
    ("E013", f"{SIM}routes: [{{name: a, §hedge: x, to: sim}}]\n", '"hedge" in routes[0]', ""),
    ("E013", "§telemetry: {}\n", '"telemetry"', ""),
    ("E010", "accounts:\n  a: §{pick: weighted}\n", 'accounts.a needs the key "members"', ""),
    (
        "E011",
        "accounts: {a: {pick: §random, members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        "accounts.a.pick",
        "known",
    ),
    ("E011", "accounts: {a: {members: §[]}}\n", "accounts.a.members", "length"),
    ("E011", "accounts: {a: {members: [{id: §a/b, key: 'file:routes.yaml'}]}}\n", "accounts.a.members[0].id", ""),
    (
        "E011",
        "accounts: {a: {cooldown: {else: §30}, members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        "accounts.a.cooldown.else: expected a duration",
        "30s",
    ),
    (
        "E011",
        "accounts: {a: {cooldown: {until: [§header]}, members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        "accounts.a.cooldown.until[0]",
        "",
    ),
    (
        "E012",
        "accounts: {a: {§memebers: [], members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        '"memebers"',
        '"members"',
    ),
    (
        "E015",
        "accounts: {§a/b: {members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        "no name for one of accounts",
        "letters",
    ),
    (
        "E016",
        "accounts: {a: {members: [{id: x, key: 'file:routes.yaml'}, {id: §x, key: 'file:routes.yaml'}]}}\n",
        'members[1]: there is an account "x"',
        "by id",
    ),
    ("E020", "accounts: {a: {members: [{id: x, key: §" + KEY + "}]}}\n", "looks like a secret", "env:NAME"),
    (
        "E021",
        "accounts: {a: {members: [{id: x, key: §env:TEST_NOT_SET}]}}\n",
        "accounts.a.members[0].key",
        "leave the account",
    ),
    (
        "E033",
        "accounts: {pool: {members: [{id: x, key: 'file:routes.yaml'}]}}\n"
        "upstreams:\n  sim: {adapter: simulator, accounts: §pol, chain: [rotate]}\n",
        'there is no pool "pol"',
        '"pool"',
    ),
    (
        "E033",
        "accounts: {a: {store: §disk, members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        'accounts.a.store: there is no store "disk"',
        "",
    ),
    (
        "E040",
        "accounts: {a: {affinity: {by: §sesion}, members: [{id: x, key: 'file:routes.yaml'}]}}\n",
        'accounts.a.affinity.by: no fact to tell sessions by: "sesion"',
        '"session"',
    ),
    (
        "E052",
        "accounts: {a: {members: [{id: x, key: 'file:routes.yaml'}]}}\n"
        "upstreams:\n  sim: {adapter: simulator, accounts: §a}\n",
        "rotate, which is not in its chain",
        "[retry, rotate]",
    ),
    ("E052", "upstreams:\n  sim: {adapter: simulator, chain: §[rotate]}\n", "there are no accounts", "accounts: POOL"),
    (
        "E052",
        "accounts: {a: {members: [{id: x, key: 'file:routes.yaml'}]}}\n"
        "upstreams:\n  sim: {adapter: simulator, key: 'file:routes.yaml', accounts: §a, chain: [rotate]}\n",
        'both "accounts" and "key"',
        "remove one",
    ),
    (
        "E052",
        "accounts: {a: {members: [{id: x, key: 'file:routes.yaml'}]}}\n"
        "upstreams:\n  sim: {adapter: simulator, credential: pass-through, accounts: §a, chain: [rotate]}\n",
        'both "accounts" and "credential: pass-through"',
        "remove one",
    ),
    (
        "E052",
        f"{SIM}routes: [{{name: a, chain: §[rotate], to: sim}}]\n",
        "rotate belongs in the chain of an upstream",
        "move",
    ),
    (
        "W101",
        f"accounts: {{§spare: {{members: [{{id: x, key: 'file:routes.yaml'}}]}}}}\n{SIM}{ROUTE}",
        "the pool of accounts spare",
        "use it",
    ),
    ("E011", "stores: {a: {max_entries: §0}}\n", "stores.a.max_entries", ">= 1"),
    ("E011", "stores: {a: {max_size: §64}}\n", "stores.a.max_size", "64KB"),
    ("E011", "stores: {a: {ttl: §0s}}\n", "stores.a: ttl must be above zero", ""),
    ("E011", "stores: {a: {kind: §redis}}\n", 'one of memory, sqlite, got "redis"', "known"),
    ("E011", "stores: {a: {kind: §sqlite}}\n", "stores.a: kind: a sqlite store needs a path", ""),
    ("E011", "stores: {a: {path: §a.db}}\n", "stores.a: path: a store in memory has no file", ""),
    ("E011", "defaults: {responses: {state: §server}}\n", "one of gateway, upstream, none", "known"),
    ("E011", "defaults: {reasoning: {ttl: §0s}}\n", "ttl must be above zero", ""),
    ("E011", "upstreams:\n  sim: {adapter: simulator, reasoning: {remember: §maybe}}\n", "reasoning.remember", ""),
    ("E012", "stores: {a: {§max_entires: 5}}\n", '"max_entires" in stores.a', '"max_entries"'),
    ("E015", "stores:\n  §a/b: {}\n", '"a/b" is no name for one of stores', "letters"),
    ("E033", f"{SIM}routes: [{{name: a, to: sim, responses: {{store: §dsik}}}}]\n", 'no store "dsik"', "default"),
    (
        "E033",
        f"defaults: {{responses: {{store: §dsik}}}}\n{SIM}{ROUTE}",
        "defaults.responses.store: there is no",
        "default",
    ),
    (
        "E033",
        "stores: {disk: {}}\nupstreams:\n  sim: {adapter: simulator, reasoning: {store: §dsik}}\n",
        'upstreams.sim.reasoning.store: there is no store "dsik"',
        '"disk"',
    ),
    (
        "E052",
        "stores: {a: {kind: sqlite, path: a.db}, b: {kind: sqlite, path: §a.db}}\n",
        "stores.a on line 2 has this file already",
        "each other's",
    ),
    (
        "E056",
        "stores: {a: {kind: sqlite, path: §no/such/a.db}}\n",
        "no directory that is there",
        "start at the rule file",
    ),
    ("E056", "stores: {a: {kind: sqlite, path: §.}}\n", "is a directory", "start at the rule file"),
    ("W101", f"stores: {{§spare: {{}}}}\n{SIM}{ROUTE}", "the store spare", "use it"),
    ("E014", f"version: §2\n{SIM}{ROUTE}", "version 2", "version: 1"),
    ("E015", "upstreams:\n  sim: {adapter: simulator}\n  §a/b: {adapter: simulator}\n", '"a/b"', "slash"),
    ("E016", f"{SIM}chains: {{§sim: []}}\n", '"sim" is an upstream on line 3', "share names"),
    (
        "E016",
        "routes:\n  - {name: a, match: {model: a}, to: sim}\n  - {name: §a, to: sim}\n",
        '"a" on line 3 already',
        "by name",
    ),
    ("E020", f"upstreams:\n  sim: {{adapter: simulator, key: §{KEY}}}\n", "secret", "env:NAME"),
    ("E020", "upstreams:\n  sim: {adapter: simulator, key: §hunter2}\n", "by reference", "env:NAME"),
    (
        "E020",
        "upstreams:\n  sim: {adapter: simulator, headers: {authorization: §Basic eDp5}}\n",
        "headers.authorization",
        "env:NAME",
    ),
    (
        "E020",
        "upstreams:\n  sim: {adapter: simulator, base_url: §https://me:hunter2@a.example}\n",
        "base_url",
        "key: env:NAME",
    ),
    ("E020", f"x-notes: [§{KEY}]\n", "secret", ""),
    ("E021", "upstreams:\n  sim: {adapter: simulator, key: §env:HEADGATE_NOT_SET}\n", "HEADGATE_NOT_SET", "?"),
    ("E021", "upstreams:\n  sim: {adapter: simulator, key: §file:no-such-key}\n", "no-such-key", "write the secret"),
    (
        "E021",
        "chains: {a: [auth: {keys: [{name: k, key: §'env:HEADGATE_NOT_SET'}]}]}\nroutes: [{name: r, chain: a, to: sim}]\n",
        "auth.keys[0].key",
        "to go without it",
    ),
    ("E030", "upstreams:\n  sim: {adapter: §simulater}\n", "'simulater'", '"simulator"'),
    ("E030", "upstreams:\n  sim: {adapter: §no.such:Thing}\n", "cannot be imported", ""),
    ("E031", "chains: {a: [§rtery]}\n", "'rtery'", '"retry"'),
    ("E031", "chains: {b: [], a: [§b, chain: b]}\n", '"b" is a chain', "{chain: b}"),
    ("E031", 'chains: {a: [§"::"]}\n', "no name of a class", "package.module:Class"),
    ("E032", 'upstreams:\n  sim: {adapter: §"rule_parts:Bare"}\n', "Options", ""),
    ("E032", 'upstreams:\n  sim: {adapter: §"rule_parts:Echo", voice: none}\n', "no voice", ""),
    ("E032", "chains: {a: [§rule_parts:Bare]}\n", "Options", ""),
    ("E032", 'chains: {a: [§"rule_parts:Mark": {refuse: true}]}\n', "refuse was asked for", ""),
    ("E032", "chains: {a: [§rule_parts:Deaf]}\n", "identify", ""),
    ("E033", f"{SIM}routes: [{{name: a, to: §smi}}]\n", 'no upstream or target "smi"', '"sim"'),
    (
        "E033",
        "chains: {base: [log]}\nroutes: [{name: a, chain: §bsae, to: sim}]\n",
        'no chain "bsae"',
        '"base"',
    ),
    ("E033", "routes: [{name: a, chain: §log, to: sim}]\n", 'no chain "log"', "[log]"),
    ("E034", "chains: {a: [chain: b], b: [chain: c], c: [chain: §b]}\n", "b → c → b", "take one"),
    (
        "E036",
        "targets:\n  a: {select: [use: b]}\n  b: {select: [use: sim], on_failure: [{kinds: [connect], use: §a}]}\n",
        "a → b → a",
        "take one",
    ),
    ("E035", "chains:\n  a:\n    - §retry:\n      tries: 3\n", "retry, tries", "indent the options"),
    ("E035", "chains: {a: [§[log]]}\n", "expected a middleware, got a list", "name"),
    ("E035", "chains: {a: [use: §auth]}\n", "use names a class", "package.module:Class"),
    ("E011", "chains: {a: [{use: 'rule_parts:Mark', fail: §maybe}]}\n", "closed, open", "the default"),
    ("E012", "chains: {a: [{use: 'rule_parts:Mark', §fails: open}]}\n", '"fails"', '"fail"'),
    ("E032", "chains: {a: [{use: 'rule_parts:Gatekeeper', fail: §open}]}\n", "cannot fail open", "take"),
    ("E040", "routes: [{name: a, match: {§modle: x}, to: sim}]\n", '"modle"', '"model"'),
    ("E040", "routes: [{name: a, match: {§headers.x-a: x}, to: sim}]\n", "headers.x-a", '"header.x-a"'),
    ("E040", "routes: [{name: a, match: {§header: {x-a: x}}, to: sim}]\n", '"header"', "header.user-agent"),
    ("E040", "routes: [{name: a, match: {§request.token: 1}, to: sim}]\n", "request.token", '"request.tokens"'),
    ("E041", "routes: [{name: a, match: {model: {§prefx: x}}, to: sim}]\n", '"prefx"', '"prefix"'),
    ("E041", "routes: [{name: a, match: {model: {§gt: 4}}, to: sim}]\n", "does not fit model", "prefix"),
    ("E041", "routes: [{name: a, match: {model: {§exists: true}}, to: sim}]\n", "does not fit", "every request"),
    ("E042", "routes: [{name: a, match: {§principal.team: x}, to: sim}]\n", "wire facts only", "select"),
    (
        "E045",
        "routes:\n  - {name: a, to: sim}\n  - §{name: b, match: {model: x}, to: sim}\n",
        'the route "b" is never reached: "a" on line 3',
        "move it up",
    ),
    ("E010", "targets: {a: {select: [§{match: {model: x}}]}}\n", '"use" or "split"', "use: UPSTREAM"),
    ("E011", "targets: {a: {select: §[]}}\n", "no cases", "such as"),
    ("E011", "targets: {a: {select: [split: §[]]}}\n", "no branches", "such as"),
    ("E011", "targets: {a: {select: [split: [{use: sim, weight: §0}]]}}\n", "weight", ""),
    ("E011", "targets: {a: {select: [split: [{use: sim, weight: §lots}]]}}\n", "a number", ""),
    (
        "E011",
        "targets: {a: {select: [use: sim], on_failure: [{kinds: [§rate_limits], use: sim}]}}\n",
        "",
        '"rate_limit"',
    ),
    ("E011", "targets: {a: {select: [use: sim], on_failure: [{kinds: §[], use: sim}]}}\n", "kinds", ""),
    ("E011", "targets: {a: {select: [use: sim]}}\nroutes: [{name: a, to: §a/m}]\n", "is a target", 'write "a"'),
    ("E012", "targets: {a: {§selekt: [use: sim], select: [use: sim]}}\n", "selekt", '"select"'),
    ("E012", "targets: {a: {select: [{§uze: sim, use: sim}]}}\n", "uze", '"use"'),
    (
        "E016",
        f"{SIM}  other: {{adapter: simulator}}\ntargets: {{§sim: {{select: [use: other]}}}}\n",
        '"sim" is an upstream on line 3',
        "share names",
    ),
    ("E033", "targets: {smart: {select: [use: §sym]}}\n", 'no upstream or target "sym"', '"sim"'),
    ("E033", "targets: {smart: {select: [use: sim]}}\nroutes: [{name: a, to: §smrt}]\n", "smrt", '"smart"'),
    ("E040", "targets: {a: {select: [{split: [use: sim], sticky: §principal.kee}]}}\n", "kee", '"principal.key"'),
    ("E040", "targets: {a: {select: [{match: {§principal.teem: x}, use: sim}]}}\n", "teem", '"principal.team"'),
    ("E047", "targets: {a: {select: [{when: '§modle == 1', use: sim}]}}\n", "modle", '"model"'),
    (
        "E061",
        'upstreams: {o: {adapter: openai, base_url: "http://127.0.0.1:9/v1"}}\n'
        "routes:\n  - {name: e, match: {§format: openai.passthrough}, to: o}\n",
        "is for openai.passthrough, which o does not serve",
        "passthrough: true",
    ),
    (
        "E061",
        f"{SIM}routes:\n  - {{name: e, match: {{§format: openai.moderations}}, to: sim}}\n",
        "is for openai.moderations, which sim does not serve",
        "adapter: openai",
    ),
    ("E045", "targets:\n  a:\n    select:\n      - use: sim\n      - §use: sim\n", "never reached", "move it up"),
    ("E052", "targets: {a: {select: [{use: sim, §split: [use: sim]}]}}\n", "both", "remove one"),
    ("E052", "targets: {a: {select: [{use: sim, §sticky: principal.key}]}}\n", "sticky", "remove it"),
    ("E046", "routes: [{name: a, match: {format: §openai.chats}, to: sim}]\n", "openai.chats", '"openai.chat"'),
    ("E044", "routes: [{name: a, when: model.matches(§'(a'), to: sim}]\n", "routes[0].when: malformed regex", "RE2"),
    ("E047", "routes: [{name: a, when: model == 'x' && §modle == 'y', to: sim}]\n", '"modle"', '"model"'),
    (
        "E047",
        "routes:\n  - name: a\n    when: |\n      model == 'x' ||\n§      modle == 'y'\n    to: sim\n",
        "",
        '"model"',
    ),
    ("E047", "routes: [{name: a, when: request.tokens >§, to: sim}]\n", "ends too early", ""),
    ("E049", "routes: [{name: a, when: model §> 3, to: sim}]\n", '">" does not fit', "quote"),
    ("E011", "routes: [{name: a, when: §true, to: sim}]\n", "routes[0].when: expected a CEL expression", "such as"),
    ("E012", "routes: [{name: a, §whne: 'true', to: sim}]\n", '"whne"', '"when"'),
    ("E040", "routes: [{name: a, match: {§when: 'true'}, to: sim}]\n", "unknown fact", "beside match"),
    ("E050", 'server: {listen: §"8080"}\n', 'expected "host:port"', "127.0.0.1:8080"),
    ("E050", 'server: {listen: §"::1:8080"}\n', "brackets", "[::1]:8080"),
    (
        "E052",
        "upstreams:\n  sim: {adapter: simulator, key: env:HOME, credential: §pass-through}\n",
        "pass-through",
        "remove one",
    ),
    (
        "E054",
        "upstreams:\n  sim: {adapter: simulator, pool: {proxy: 'http://p:1'}, transport: §lean}\n",
        "pool.proxy",
        "transport: auto",
    ),
    ("E011", "upstreams:\n  sim: {adapter: simulator, transport: §leen}\n", "auto, lean, aiohttp", '"lean"'),
    ("W101", f"{SIM}chains: {{§spare: [log]}}\n{ROUTE}", "spare", "use it"),
    ("W101", "upstreams:\n  sim: {adapter: simulator}\n  §spare: {adapter: simulator}\n", "spare", "use it"),
    ("W102", "upstreams:\n  §sim: {adapter: simulator, key: 'env:HEADGATE_NOT_SET?'}\n", "HEADGATE_NOT_SET", "match"),
    (
        "E060",
        f"{SIM}{ROUTE}tests: [{{name: t, given: {{}}, expect: {{upstream: §x}}}}]\n",
        "expects upstream x",
        "headgate test",
    ),
    (
        "E060",
        f"{SIM}{ROUTE}tests: [{{name: t, given: {{down: §[sym]}}, expect: {{route: a}}}}]\n",
        'no upstream "sym"',
        "",
    ),
    ("E060", f"{SIM}{ROUTE}tests: [{{name: t, given: §{{format: x}}, expect: {{route: a}}}}]\n", "cannot be run", ""),
    ("E010", f"{SIM}{ROUTE}tests: [{{name: t, given: {{}}, expect: §{{}}}}]\n", "expects nothing", "route: NAME"),
    (
        "E011",
        f"{SIM}{ROUTE}tests: [{{name: t, given: {{failures: [§connnect]}}, expect: {{route: a}}}}]\n",
        "",
        '"connect"',
    ),
    ("E012", f"{SIM}{ROUTE}tests: [{{name: t, given: {{§modle: x}}, expect: {{route: a}}}}]\n", "modle", '"model"'),
    (
        "E016",
        f"{SIM}{ROUTE}tests:\n  - &t {{name: t, given: {{}}, expect: {{route: a}}}}\n  - {{<<: *t, name: §t}}\n",
        "line",
        "by name",
    ),
    ("W104", f"{SIM}targets:\n  a: §{{select: [{{match: {{model: x}}, use: sim}}]}}\n{ROUTE}", "no case", "no match"),
    ("W103", f"§version: 1\n{SIM}routes: []\n", "no routes", "add"),
    ("E011", "upstreams:\n  sim: {adapter: simulator, emulate: {structured_output: §tools}}\n", "emulate", '"tool"'),
    ("E011", "upstreams:\n  sim: {adapter: simulator, emulate: {n: §1}}\n", "sim.emulate.n", ""),
    ("E011", "upstreams:\n  sim: {adapter: simulator, emulate: {stream: §gateway}}\n", "emulate.stream", ""),
    ("E012", "upstreams:\n  sim: {adapter: simulator, emulate: {§steam: tell}}\n", '"steam"', '"stream"'),
    (
        "E059",
        "upstreams:\n  sim: {adapter: simulator, emulate: {media_urls: §fetch}}\n",
        "no host is allowed",
        "media: {fetch: {hosts:",
    ),
    ("E010", "media: {fetch: §{}}\n", 'media.fetch needs the key "hosts"', ""),
    ("E011", "media: {fetch: {hosts: §[]}}\n", "media.fetch.hosts", "length"),
    ("E011", "media: {fetch: {hosts: §['https://a.example']}}\n", "https://a.example", "*.cdn.example"),
    ("E011", "media: {fetch: {hosts: [a], max_size: §10}}\n", "media.fetch.max_size", "10MiB"),
    ("E011", "media: {fetch: {hosts: [a], timeout: §0s}}\n", "timeout must be above zero", ""),
    ("E011", "media: {fetch: {hosts: [a], private: §true}}\n", "media.fetch.private", ""),
    ("E012", "media: {§fecth: {}}\n", '"fecth" in media', '"fetch"'),
]
ELSEWHERE = {"E064", "E001", "E043", "E048", "E051", "E053", "E055", "E058", "E066"}
"""Codes whose mistake is not in the text alone: each has a test of its own below."""


def planted(text: str) -> tuple[str, int, int]:
    """Return a whole rule file for ``text``, and the line and column of its mark."""
    whole = text
    if not text.lstrip("§").startswith("version:"):
        whole = f"version: 1\n{text}"
        if "\n---" not in text:
            whole += "".join(part for part in (SIM, ROUTE) if part[: part.index(":") + 1] not in text)
    before = whole[: whole.index("§")]
    return whole.replace("§", ""), before.count("\n") + 1, len(before) - before.rfind("\n")


def found(text: str, tmp_path: Path) -> list[rules.Problem]:
    path = tmp_path / "routes.yaml"
    path.write_text(text, encoding="utf-8")
    return rules.check(path)


@pytest.mark.parametrize(
    ("code", "text", "message", "hint"), MISTAKES, ids=[f"{case[0]}-{at}" for at, case in enumerate(MISTAKES)]
)
def test_a_planted_mistake_is_found(code, text, message, hint, tmp_path, parts):
    whole, line, column = planted(text)
    problems = found(whole, tmp_path)
    severity = "warning" if code.startswith("W") else "error"
    said = [problem for problem in problems if problem.severity == severity]
    if code.startswith("W"):
        said = [problem for problem in said if problem.code == code]
    assert [(problem.code, problem.line, problem.column) for problem in said] == [(code, line, column)], problems
    assert message in said[0].message
    assert hint in f"{said[0].message} {said[0].hint}"
    assert KEY not in str(said[0]) and "hunter2" not in str(said[0])


def test_all_mistakes_of_a_file_are_told_at_once_in_its_order(tmp_path):
    text = textwrap.dedent("""\
        version: 1
        server: {workers: many, keep_alive: 15, lsiten: a}
        upstreams:
          sim: {adapter: simulator, timeout: {connect: 5}}
          old: {adapter: simulater, whatever: 1}
        chains:
          base: [lgo, retry: {tries: 0}]
        routes:
          - {name: a, match: {modle: x, request.tokens: {gt: many}}, to: smi}
          - {nmae: b, to: sim}
        """)
    said = [(problem.line, problem.code) for problem in found(text, tmp_path) if problem.severity == "error"]
    assert said == [
        (2, "E011"),
        (2, "E011"),
        (2, "E012"),
        (4, "E011"),
        (5, "E030"),
        (7, "E031"),
        (7, "E011"),
        (9, "E040"),
        (9, "E011"),
        (9, "E033"),
        (10, "E010"),
        (10, "E012"),
    ]


def test_the_words_of_a_problem(tmp_path):
    whole, _, _ = planted("upstreams:\n  sim: {adapter: simulator, §timeuot: {}}\n")
    path = tmp_path / "routes.yaml"
    (problem,) = found(whole, tmp_path)
    assert str(problem) == (f'{path}:3:29 error E012 unknown key "timeuot" in upstreams.sim (did you mean "timeout"?)')


def test_a_missing_file_says_how_to_get_one(tmp_path):
    (problem,) = rules.check(tmp_path / "routes.yaml")
    assert problem.code == "E001" and "headgate init" in problem.hint
    with pytest.raises(rules.RulesError, match="headgate init"):
        rules.load(tmp_path / "routes.yaml")


def test_a_file_that_is_not_utf8(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_bytes(b"version: 1\n# caf\xe9\n")
    (problem,) = rules.check(path)
    assert problem.code == "E001" and "UTF-8" in problem.message


def test_a_regex_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "re2", None)
    whole, line, column = planted("routes: [{name: a, match: {model: {regex: §'a+'}}, to: sim}]\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E043", line, column)
    assert "headgate[re2]" in problem.hint


def test_an_expression_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cel_expr_python", None)
    monkeypatch.setitem(sys.modules, "cel_expr_python.cel", None)
    whole, line, column = planted("routes: [{name: a, when: §request.stream, to: sim}]\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E048", line, column)
    assert "headgate[cel]" in problem.hint


def test_exact_tokens_without_the_extra_name_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "splintr", None)
    whole, line, column = planted("defaults: {tokens: §exact}\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E055", line, column)
    assert "headgate[tokens]" in problem.hint


def test_a_catalog_of_prices_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    for text in ("prices: {catalog: §true}\n", "upstreams:\n  sim: {adapter: simulator, prices: {catalog: §openai}}\n"):
        whole, line, column = planted(text)
        (problem,) = found(whole, tmp_path)
        assert (problem.code, problem.line, problem.column) == ("E064", line, column)
        assert "headgate[prices]" in problem.hint


def test_a_loop_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvloop", None)
    whole, line, column = planted("server: {loop: §uvloop}\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E066", line, column)
    assert "headgate[uvloop]" in problem.hint


def test_structured_output_without_the_extra_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jsonschema_rs", None)
    whole, line, column = planted("upstreams:\n  sim: {adapter: simulator, emulate: {structured_output: §tool}}\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E058", line, column)
    assert "headgate[structured]" in problem.hint


@pytest.mark.parametrize("pattern", ["(", "(?=a)", "(((a{100}){100}){100})", "x" * 1001])
def test_a_malformed_or_oversized_regex(pattern, tmp_path):
    pytest.importorskip("re2")
    whole, line, column = planted(f"routes: [{{name: a, match: {{model: {{regex: §'{pattern}'}}}}, to: sim}}]\n")
    (problem,) = found(whole, tmp_path)
    assert (problem.code, problem.line, problem.column) == ("E044", line, column)


def test_an_address_open_to_the_network(tmp_path):
    problems = found(f"version: 1\nserver: {{listen: 0.0.0.0:80}}\n{SIM}{ROUTE}", tmp_path)
    assert [problem.code for problem in problems] == ["E051"]
    assert "anonymous: allow" in problems[0].hint


def test_a_change_that_needs_a_restart(plan_of):
    before = plan_of(f"server: {{workers: 1}}\n{SIM}{ROUTE}")
    with pytest.raises(rules.RulesError) as raised:
        plan_of(f"server: {{workers: 2}}\n{SIM}{ROUTE}", previous=before)
    (problem,) = raised.value.problems
    assert (problem.code, problem.line, problem.column) == ("E053", 2, 19)


GOOD = {
    "version": 1,
    "server": {"listen": "127.0.0.1:1", "cors": {"origins": ["*"]}, "trusted_proxies": ["10.0.0.0/8"]},
    "defaults": {"timeout": {"connect": "5s"}, "loss": "report"},
    "upstreams": {
        "sim": {"adapter": "simulator", "delay": "1s", "chain": [{"retry": {"tries": 2, "on": ["connect"]}}]},
        "echo": {
            "adapter": "rule_parts:Echo",
            "headers": {"x-a": "b"},
            "models": ["a"],
            "base_url": "https://a.example/v1",
            "pool": {"proxy": "http://a:1"},
        },
    },
    "chains": {"base": ["log", {"use": "rule_parts:Mark", "with": {"steps": [{"tries": 1}]}}, {"chain": "b"}], "b": []},
    "routes": [
        {"name": "a", "match": {"model": ["a", {"prefix": "b"}], "header.x": {"not": {"has": "c"}}}, "to": "sim/x"},
        {"name": "b", "match": {"request.tokens": {"gt": 4}}, "chain": "base", "to": "echo", "timeout": "5s"},
    ],
}
JUNK = [None, True, 0, -1, 1.5, "", "x", "a/b", "env:", "env:A?", "file:/", [], {}, [[]], [None], {"a": None}, {"": 1},
        {"use": "a:b"}, {"chain": "base"}, "base", "*", "30s", "http://[", "unix:", "::", "json:loads", 10**25,
        ["log", ["log"]], {"log": []}, {"log": "x"}]  # fmt: skip


def places(value, path=()):
    for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(value[key], (*path, key))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(list(places(GOOD))), st.sampled_from(JUNK)), max_size=3))
def test_whatever_stands_in_a_file_it_is_judged_and_nothing_raised(tmp_path, parts, changes):
    data = copy.deepcopy(GOOD)
    for path, junk in changes:
        inner = data
        try:
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = copy.deepcopy(junk)
        except (TypeError, KeyError, IndexError):
            continue  # an earlier change took the place away
    problems = found(json.dumps(data), tmp_path)
    assert changes or problems == []
    assert all(problem.message and problem.line == 1 for problem in problems)


def test_every_code_has_a_planted_mistake_and_a_place_in_the_documentation():
    assert {case[0] for case in MISTAKES} | ELSEWHERE == set(CATALOGUE)
    text = (Path(__file__).parents[2] / "docs" / "rules-errors.md").read_text(encoding="utf-8")
    documented = dict(re.findall(r"^### ([EW]\d{3}) (.+)$", text, re.MULTILINE))
    assert documented == CATALOGUE
