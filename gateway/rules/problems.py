"""What is wrong with a rule file, the way a compiler says it: code, place, what, and what to do.

Every code stands in ``CATALOGUE``; docs/rules-errors.md explains each. No message repeats what may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

Severity = Literal["error", "warning"]

CATALOGUE: Final[dict[str, str]] = {
    "E001": "the file cannot be read",
    "E002": "not YAML",
    "E003": "a YAML feature that rule files do without",
    "E004": "a key written twice",
    "E005": "a value that YAML 1.1 and 1.2 read differently",
    "E006": "too large, too deep, or too many aliases",
    "E007": "an alias or merge key that leads nowhere",
    "E008": "an included file that cannot be read",
    "E009": "a file included twice",
    "E010": "a key is missing",
    "E011": "a value of the wrong type or out of range",
    "E012": "an unknown key",
    "E013": "not available in this version",
    "E014": "an unknown version of the rule language",
    "E015": "a malformed name",
    "E016": "a name used twice",
    "E020": "a secret written into the file",
    "E021": "a secret that is not there",
    "E030": "an unknown adapter",
    "E031": "an unknown middleware",
    "E032": "an adapter or middleware that cannot be built",
    "E033": "a reference to nothing",
    "E034": "a chain that contains itself",
    "E035": "a malformed chain item",
    "E036": "a target that leads to itself",
    "E040": "an unknown fact in match",
    "E041": "an operator that does not fit",
    "E042": "a route that asks who calls",
    "E043": "a regex without the re2 extra",
    "E044": "a malformed regex",
    "E045": "a route that is never reached",
    "E046": "an unknown format",
    "E047": "a malformed expression, or an unknown name in it",
    "E048": "an expression without the cel extra",
    "E049": "an expression of the wrong type",
    "E050": "a malformed address",
    "E051": "open to the network without auth",
    "E052": "settings that contradict each other",
    "E053": "a change that needs a restart",
    "E054": "a transport that cannot serve",
    "E055": "exact tokens without the tokens extra",
    "E056": "a store that cannot be opened",
    "E058": "structured output without the structured extra",
    "E059": "media that nobody may be asked for",
    "E060": "a test in the file that fails",
    "E061": "a route for what its upstreams do not serve",
    "E064": "a catalog of prices without the prices extra",
    "E065": "a budget that nobody can keep",
    "E066": "a loop without the uvloop extra",
    "W101": "defined and never used",
    "W102": "an upstream that is off",
    "W103": "no routes",
    "W104": "a target without a last resort",
    "W105": "an include that finds nothing",
    "W106": "a middleware in the wrong place",
}
"""Code to title. A code keeps its meaning for good; a retired one is not used again."""

_KEY: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{16,}"  # OpenAI, Anthropic, OpenRouter and their like
    r"|(?:gsk_|ghp_|gho_|ghs_|github_pat_|hf_|r8_|fw_|tgp_|xai-|glpat-|nvapi-|pplx-|csk-)[A-Za-z0-9_-]{20,}"
    r"|A[KS]IA[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{30,}|ya29\.[0-9A-Za-z_-]{20,}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{5,}[A-Za-z0-9_.-]*"  # a JSON web token
    r"|(?i:bearer|basic)\s+[A-Za-z0-9._~+/=-]{12,}"
    r")|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)


def looks_like_key(text: str) -> bool:
    """Whether ``text`` contains what providers' keys look like."""
    return _KEY.search(text) is not None


def mask_keys(text: str, mask: str) -> str:
    """Return ``text`` with ``mask`` in place of what providers' keys look like."""
    return _KEY.sub(mask, text)


class Spot(NamedTuple):
    """A place in a rule file. ``line`` and ``column`` count from 1."""

    source: str
    line: int
    column: int

    def seen_from(self, other: Spot) -> str:
        """Return the place as a message at ``other`` says it: the file is named where it is another one."""
        return f"on line {self.line}" if self.source == other.source else f"in {self.source} on line {self.line}"


class Problem(Struct, frozen=True):
    """One finding. ``hint`` says what to do, where that is not plain from ``message``."""

    code: str
    severity: Severity
    source: str
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.source}:{self.line}:{self.column} {self.severity} {self.code} {self.message}{hint}"


class RulesError(ValueError):
    """A rule file that cannot be used; ``problems`` are its errors and warnings, in the order of the file.

    ``sources`` are the files, and the directories of globs, where a change may mend it.
    """

    def __init__(self, problems: Iterable[Problem], sources: Iterable[Path] = ()) -> None:
        self.problems = tuple(problems)
        self.sources = tuple(sources)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class Problems:
    """The findings of one load."""

    def __init__(self) -> None:
        self._found: dict[Problem, None] = {}  # a set that keeps its order
        self._silent: set[Spot] = set()

    def add(self, code: str, spot: Spot, message: str, hint: str = "") -> None:
        """Note a finding; the first letter of ``code`` is its severity. The same one twice at a spot counts once."""
        assert code in CATALOGUE, code
        if spot in self._silent:
            return
        problem = Problem(
            code,
            "warning" if code.startswith("W") else "error",
            *spot,
            _KEY.sub("[a secret]", message),
            _KEY.sub("[a secret]", hint),
        )
        self._found.setdefault(problem)

    def silence(self, spot: Spot) -> None:
        """Drop later findings at ``spot``: what is wrong there has been said, the rest would follow from it."""
        self._silent.add(spot)

    def __len__(self) -> int:
        return len(self._found)

    @property
    def failed(self) -> bool:
        """Whether there is an error among them."""
        return any(problem.severity == "error" for problem in self._found)

    def sorted(self) -> tuple[Problem, ...]:
        """Return the findings in the order of the file."""
        return tuple(
            sorted(self._found, key=lambda problem: (problem.source, problem.line, problem.column, problem.code))
        )


def nearest(name: str, known: Iterable[str]) -> str:
    """Return a hint for a misspelt ``name``: the nearest of ``known``, else all of them if they are few, else nothing."""
    candidates = sorted(set(known))
    folded = {candidate.lower(): candidate for candidate in candidates}
    # two letters the wrong way round are the commonest slip, and one that difflib rates low
    swapped = [each for each in folded if sorted(each) == sorted(name.lower())]
    close = swapped or get_close_matches(name.lower(), folded, n=1, cutoff=0.6)
    if close:
        return f'did you mean "{folded[close[0]]}"?'
    if 0 < len(candidates) <= 16:
        return f"known: {', '.join(candidates)}"
    return ""
