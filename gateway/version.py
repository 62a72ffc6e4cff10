"""The version, from one place: the installed distribution's metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("headgate")
except PackageNotFoundError:  # a source tree on the path without installation
    VERSION = "0+unknown"
