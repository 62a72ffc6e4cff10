"""A rule file in the making: named parts, secrets that become references, and nothing that the loader would refuse."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from ..errors import KINDS, RETRYABLE, ErrorKind
from ..rules.condition import Condition
from ..rules.coverage import all_covered
from ..rules.document import parse
from ..rules.problems import Problems, looks_like_key
from ..rules.read_match import read_match
from .report import Report
from .source import Cursor
from .text import flow
from .vendors import Vendor, base_url_for, is_loopback

ANY_ERROR: Final = tuple(kind for kind in KINDS if kind not in ("cancelled", "internal"))
PASSING_ERROR: Final = tuple(kind for kind in KINDS if kind in RETRYABLE or kind == "timeout.first_token")
"""Errors after which the same request may succeed."""

_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEADER: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING: Final = frozenset({"host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade"})
_SECRET_HEADER: Final = re.compile(r"auth|key|token|secret|cookie|password|credential", re.I)
_DUMMIES: Final = frozenset(
    {"none", "null", "dummy", "fake", "fake-key", "not-needed", "empty", "anything", "ollama", "lm-studio", "sk-1234"}
)
_REFERENCES: Final = re.compile(r"os\.environ/(\w+)|\$\{?([A-Za-z_]\w*)\}?")


class Upstream(Struct, frozen=True, kw_only=True):
    """An upstream to be. ``timeout`` is in seconds, ``chain`` items as the rule file has them."""

    adapter: str
    base_url: str | None = None
    key: str | None = None
    pass_through: bool = False
    headers: Mapping[str, str] = {}
    timeout: Mapping[str, float] = {}
    proxy: str | None = None
    chain: tuple[object, ...] = ()

    def rules(self) -> dict[str, object]:
        """Return what stands in the rule file."""
        found: dict[str, object] = {"adapter": self.adapter}
        if self.base_url is not None:
            found["base_url"] = self.base_url
        if self.key is not None:
            found["key"] = self.key
        if self.pass_through:
            found["credential"] = "pass-through"
        if self.chain:
            found["chain"] = list(self.chain)
        if self.timeout:
            found["timeout"] = {name: spell_duration(value) for name, value in self.timeout.items()}
        if self.headers:
            found["headers"] = dict(self.headers)
        if self.proxy is not None:
            found["pool"] = {"proxy": self.proxy}
        return found


class Draft:
    """Parts are added once each and named on the way; ``emit`` writes them."""

    def __init__(self, title: str, root: Cursor, report: Report) -> None:
        self.title = title
        self.root = root
        self.report = report
        self.server: dict[str, object] = {}
        self.server_note = ""
        self.defaults: dict[str, object] = {}
        self.chain: list[object] = []
        self.upstreams: dict[str, Upstream] = {}
        self.origins: dict[str, list[str]] = {}
        self.targets: dict[str, dict[str, object]] = {}
        self.routes: list[dict[str, object]] = []
        self.tests: list[dict[str, object]] = []
        self._earlier: list[Mapping[str, Condition]] = []
        self._variables: dict[tuple[str, str], str] = {}  # of each secret, by what it is for
        self._taken = {first or second for first, second in _REFERENCES.findall(str(root.value))}

    # -- parts

    def upstream(self, wanted: str, upstream: Upstream, origin: Cursor, also: str = "") -> str:
        """Return the name of an upstream, an equal one that is there or a new one. ``also`` tells it from its like."""
        for name, known in self.upstreams.items():
            if known == upstream:
                if origin.path not in self.origins[name]:
                    self.origins[name].append(origin.path)
                return name
        if any(replace(known, chain=upstream.chain) == upstream for known in self.upstreams.values()):
            also = "retried" if upstream.chain else "drawn"  # a case of its own: the same provider, other retries
        name = self._free(slug(wanted), slug(f"{wanted}-{also}") if also else "")
        self.upstreams[name] = upstream
        self.origins[name] = [origin.path]
        return name

    def target(self, wanted: str, select: list[object], on_failure: list[object] | None = None) -> str:
        """Add a target; return its name."""
        name = self._free(slug(wanted), slug(f"{wanted}-models"))
        self.targets[name] = {"select": select, **({"on_failure": on_failure} if on_failure else {})}
        return name

    def route(self, name: str, match: Mapping[str, object], to: str) -> bool:
        """Add a route; False if it could never be reached, or its match is not one that the rules know."""
        if not self.reachable(self._earlier, match):
            return False
        wanted, number = name, 1
        while any(route["name"] == wanted for route in self.routes):
            number += 1
            wanted = f"{name} ({number})"
        chain = {"chain": "base"} if self.chain else {}
        self.routes.append({"name": wanted, **({"match": match} if match else {}), **chain, "to": to})
        return True

    def test(self, name: str, given: Mapping[str, object], expect: Mapping[str, object]) -> None:
        """Add a test."""
        wanted, number = name, 1
        while any(test["name"] == wanted for test in self.tests):
            number += 1
            wanted = f"{name} ({number})"
        self.tests.append({"name": wanted, "given": given, "expect": expect})

    @staticmethod
    def reachable(earlier: list[Mapping[str, Condition]], match: Mapping[str, object]) -> bool:
        """Whether ``match`` is one, and takes something that none of ``earlier`` does; then it is added to them."""
        problems = Problems()
        node = parse(flow(match), "", problems)
        conditions = None if node is None else read_match(node, "", problems, principal=True)
        if conditions is None or len(problems) or any(all_covered(wide, conditions) for wide in earlier):
            return False
        earlier.append(conditions)
        return True

    def _free(self, *wanted: str) -> str:
        names = [name for name in wanted if name]
        number = 1
        while True:
            for name in names:
                candidate = name if number == 1 else f"{name}-{number}"
                if candidate not in self.upstreams and candidate not in self.targets:
                    return candidate
            number += 1

    # -- values that need care

    def secret(self, found: Cursor, wanted: str, what: str = "the key") -> str:
        """Return the reference that stands for a secret: the variable that is named, or one to put it into."""
        text = str(found.value).strip()
        named = variable(text)
        if named is not None:
            found.carry()
            return f"env:{named}?"
        if (text, wanted) not in self._variables:
            name, number = wanted, 1
            while name in self._taken:
                number += 1
                name = f"{wanted}_{number}"
            self._taken.add(name)
            self._variables[text, wanted] = name
        name = self._variables[text, wanted]
        found.hide(f"{what} is no longer in the file", f"put it into the environment variable {name}")
        return f"env:{name}?"

    def key(self, found: Cursor | None, vendor: Vendor, name: str, base_url: str | None) -> str | None:
        """Return the reference to a provider's key, or None if it has none.

        ``name`` is what its variable is called after where the vendor does not say, or is not who stands at ``base_url``.
        """
        if found is None:
            return None
        if found.is_table or found.is_items:
            found.leave("expected a text")
            return None
        text = str(found.value).strip()
        if text in ("", "EMPTY"):
            found.carry()
            return None
        if text.lower() in _DUMMIES and is_loopback(base_url):
            found.leave("a server on this machine needs no key")
            return None
        elsewhere = vendor.base_url is None and base_url is not None
        return self.secret(found, variable_for(name) if elsewhere or not vendor.variable else vendor.variable)

    def address(self, found: Cursor | None, vendor: Vendor, environment: Mapping[str, str]) -> str | None:
        """Return the ``base_url`` for an address of the source, None for the adapter's own; "" if there is none."""
        if found is None:
            return vendor.base_url
        if found.is_table or found.is_items:
            found.leave("expected an address")
            return ""
        text = str(found.value).strip()
        named = variable(text)
        if named is not None:
            return self._address_of(found, named, vendor, environment)
        address = base_url_for(vendor, text)
        if address is None:
            found.leave("expected an address: http(s)://host[:port][/path], without user, password and query")
            return ""
        if text.startswith(address):
            found.carry()
        else:
            found.change(f"spelled as the adapter wants it: {address}")
        return address

    def _address_of(self, found: Cursor, named: str, vendor: Vendor, environment: Mapping[str, str]) -> str:
        """Return the address that a variable holds. A rule file's addresses do not come from variables."""
        held = base_url_for(vendor, environment.get(named, ""))
        if held is not None:
            found.change(f"an address cannot come from a variable: this is what {named} held at the import")
            return held
        host = re.sub(r"[^a-z0-9]+", "-", named.lower()).strip("-") or "address"
        found.change(
            f"an address cannot come from a variable, and {named} held none at the import",
            f"write the address in place of {host}.invalid",
        )
        return base_url_for(vendor, f"https://{host}.invalid") or ""

    def headers(self, found: Cursor | None, upstream_name: str) -> dict[str, str]:
        """Return the headers to send along; what looks like a secret becomes a reference."""
        headers: dict[str, str] = {}
        for name, cursor in found.entries() if found is not None else ():
            if not _HEADER.fullmatch(name) or name.lower() in _FRAMING or name.lower() in map(str.lower, headers):
                cursor.leave("not a header that a rule file can set")
                continue
            if cursor.is_table or cursor.is_items or not str(cursor.value).strip() or looks_like_key(name):
                cursor.leave("expected a text")
                continue
            text = str(cursor.value).strip()
            if variable(text) or _SECRET_HEADER.search(name) or looks_like_key(text) or re.match(r"(env|file):", text):
                headers[name] = self.secret(
                    cursor, f"{variable_for(upstream_name, '')}{variable_for(name, '')}".strip("_")
                )
            elif not text.isprintable():
                cursor.leave("a header value is one line of printable text")
            else:
                cursor.carry()
                headers[name] = text
        return headers


def variable(text: str) -> str | None:
    """Return the environment variable that a value names: ``os.environ/NAME``, ``$NAME``, ``${NAME}``."""
    found = re.fullmatch(r"os\.environ/(.+)|\$\{(\w+)\}|\$(\w+)", text.strip())
    name = None if found is None else next(group for group in found.groups() if group is not None)
    return name if name is not None and _VARIABLE.fullmatch(name) and not looks_like_key(name) else None


def variable_for(name: str, suffix: str = "_API_KEY") -> str:
    """Return a variable's name for something that is called ``name``."""
    text = re.sub(r"[^A-Z0-9]+", "_", slug(name).upper()).strip("_")
    return f"{text}{suffix}" if text[:1].isalpha() else f"KEY_{text}{suffix}"


def slug(name: str) -> str:
    """Return a name that upstreams and targets may have."""
    text = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    return text[:60].rstrip("-._") if text and not looks_like_key(text) else "provider"


def spell_duration(seconds: float) -> str:
    """Return a duration as the rule file spells it."""
    thousandths = max(round(seconds * 1000), 1)
    for unit, size in (("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if thousandths % size == 0:
            return f"{thousandths // size}{unit}"
    return f"{thousandths}ms"


def retry(tries: int, kinds: Iterable[ErrorKind] | None = None) -> object:
    """Return a chain item that tries again, ``tries`` counting the first."""
    found: dict[str, object] = {"tries": max(1, min(tries, 20))}
    if kinds is not None:
        found["on"] = sorted(kinds)
    return {"retry": found}


def sample(glob: str) -> str:
    """Return a name that a glob matches."""
    return glob.replace("*", "x").replace("?", "x")


def is_name(text: str) -> bool:
    """Whether a text may stand in a rule file as the name of a model or route."""
    return bool(text) and text.isprintable() and not looks_like_key(text) and len(text) <= 200
