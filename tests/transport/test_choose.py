"""Which transport serves what."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from headgate.gateway.transport import choose
from headgate.gateway.transport.choose import CannotServe, open_transport
from headgate.gateway.transport.lean import LeanTransport
from headgate.gateway.transport.options import TransportOptions
from headgate.gateway.transport.session import SessionTransport

BEYOND = [TransportOptions(proxy="http://proxy:1"), TransportOptions(unix_socket="/tmp/s")]


def test_auto_is_lean_where_it_can_serve() -> None:
    assert type(open_transport()) is LeanTransport
    assert type(open_transport(name="lean")) is LeanTransport
    assert type(open_transport(name="aiohttp")) is SessionTransport
    for options in BEYOND:
        assert type(open_transport(options)) is SessionTransport


@pytest.mark.parametrize("options", BEYOND)
def test_lean_by_name_where_it_cannot_serve(options: TransportOptions) -> None:
    with pytest.raises(CannotServe, match=r"pool\.(proxy|unix_socket)") as caught:
        open_transport(options, "lean")
    assert "auto" in caught.value.hint
    with pytest.raises(ValueError, match="lean transport"):
        LeanTransport(options)


def test_without_httptools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose, "find_spec", lambda name: None)
    assert type(open_transport()) is SessionTransport
    with pytest.raises(CannotServe, match="extra") as caught:
        open_transport(name="lean")
    assert "headgate[lean]" in caught.value.hint


def test_httptools_is_loaded_by_the_lean_transport_alone() -> None:
    code = (
        "import sys\n"
        "import headgate.gateway.rules, headgate.gateway.transport.choose as choose\n"
        "choose.open_transport(name='aiohttp')\n"
        "assert 'httptools' not in sys.modules\n"
        "choose.open_transport()\n"
        "assert 'httptools' in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_options_that_cannot_be_are_told_by_both(tmp_path: Path) -> None:
    options = TransportOptions(ca_bundle=str(tmp_path / "none.pem"))
    for name in ("auto", "aiohttp"):
        with pytest.raises(ValueError, match=r"^ca_bundle"):
            open_transport(options, name)
