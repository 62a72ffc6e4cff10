"""Listed: the source whose items are all there; and the two that stand where something was."""

from __future__ import annotations

import pytest
from headgate.gateway.errors import Cut
from headgate.gateway.ir.event import Chunk
from headgate.gateway.relay.reply import EMPTY, GONE_SINK
from headgate.gateway.relay.source import GONE, Listed

from .conftest import Ear, say

ABC = [say("a"), say("b"), say("c")]


async def test_everything_comes_inside_connect() -> None:
    ear = Ear()
    Listed(ABC).connect(ear)
    assert (ear.text, ear.ends, ear.error) == ("abc", 1, None)


async def test_it_ends_with_its_error() -> None:
    ear, error = Ear(), Cut("cut")
    Listed(ABC[:1], error).connect(ear)
    assert (ear.text, ear.ends) == ("a", 1)
    assert ear.error is error


async def test_pause_before_connect_holds_everything_back() -> None:
    ear, source = Ear(), Listed(ABC)
    source.resume()
    source.pause()
    source.connect(ear)
    assert (ear.text, ear.ends) == ("", 0)
    source.resume()
    source.resume()
    assert (ear.text, ear.ends) == ("abc", 1)


async def test_pause_from_inside_push_holds_for_the_end_too() -> None:
    source = Listed(ABC)
    ear = Ear(lambda chunk: source.pause())
    source.connect(ear)
    assert (ear.text, ear.ends) == ("a", 0)
    source.resume()
    source.resume()
    assert (ear.text, ear.ends) == ("abc", 0)
    source.resume()
    assert ear.ends == 1


async def test_resume_from_inside_push_does_not_nest() -> None:
    source: Listed[Chunk] = Listed(ABC)
    depth = deepest = 0

    def on_push(chunk: Chunk) -> None:
        nonlocal depth, deepest
        depth += 1
        deepest = max(deepest, depth)
        source.pause()
        source.resume()
        depth -= 1

    ear = Ear(on_push)
    source.connect(ear)
    assert (ear.text, ear.ends, deepest) == ("abc", 1, 1)


async def test_abort_from_inside_push_is_final() -> None:
    source = Listed(ABC)

    def leave(chunk: Chunk) -> None:
        source.abort()
        ear.deaf = True

    ear = Ear(leave)
    source.connect(ear)
    source.resume()
    source.abort()
    assert (ear.text, ear.ends) == ("a", 0)


async def test_a_source_that_was_aborted_says_nothing_when_it_is_connected_after_all() -> None:
    source, ear = Listed(ABC), Ear()
    source.abort()
    source.connect(ear)
    assert (ear.chunks, ear.ends) == ([], 0)


async def test_what_is_gone_takes_everything_but_connect() -> None:
    GONE.pause()
    GONE.resume()
    GONE.abort()
    with pytest.raises(AssertionError):
        GONE.connect(Ear())
    GONE_SINK.push(say("a"))
    GONE_SINK.end(None)
    EMPTY.append(say("a"))
    assert not EMPTY
