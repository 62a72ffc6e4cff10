"""Print the names of the installed packages that Headgate itself needs, its extras' included where they are installed.

The licence check looks at these and not at the tools: what we ship with is what binds those who use it.
"""

from __future__ import annotations

from collections import deque
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


def runtime_packages(root: str) -> set[str]:
    """Return what ``root`` needs, directly or not, without ``root``."""
    found: set[tuple[str, str]] = set()
    open_ends = deque(
        [(root, ""), *((root, extra) for extra in distribution(root).metadata.get_all("Provides-Extra", []))]
    )
    while open_ends:
        name, extra = open_ends.popleft()
        if (name, extra) in found:
            continue
        try:
            needed = distribution(name).requires or []
        except PackageNotFoundError:
            continue  # an extra that is not installed
        found.add((name, extra))
        for text in needed:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                needs = canonicalize_name(requirement.name)
                open_ends.extend((needs, part) for part in ("", *requirement.extras))
    return {name for name, _ in found} - {root}


if __name__ == "__main__":
    print(*sorted(runtime_packages("headgate")))  # noqa: T201  # a command
