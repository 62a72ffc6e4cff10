"""The error tree: each kind has one class, one status, one side whose fault it is, and every format can say it."""

from __future__ import annotations

import json

import pytest
from headgate.gateway import errors, registry
from headgate.gateway.errors import KINDS, RETRYABLE, STATUS, GatewayError, upstream_error


def _tree(kind: type[GatewayError]) -> list[type[GatewayError]]:
    return [kind, *(each for below in kind.__subclasses__() for each in _tree(below))]


TREE = [kind for kind in _tree(GatewayError) if kind.__module__ == errors.__name__]
FORMATS = registry.names("codecs")
_WORD = {
    "gemini": "status",
    "gemini.passthrough": "status",
}  # where a format says the kind, if it is not the error's type


def test_every_kind_has_a_status() -> None:
    assert set(STATUS) == set(KINDS)
    assert len(KINDS) == len(set(KINDS))
    assert set(RETRYABLE) < set(KINDS)
    assert all(400 <= status <= 599 for status in STATUS.values())


def test_time_outs_after_the_request_was_sent_are_not_retried() -> None:
    assert {"timeout.first_token", "timeout.idle", "timeout.total", "timeout.write"}.isdisjoint(RETRYABLE)
    assert {"cancelled", "internal", "auth", "invalid_request", "quota", "malformed"}.isdisjoint(RETRYABLE)


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_classes(kind: type[GatewayError]) -> None:
    error = kind("path", "why") if kind is errors.DecodeError else kind("what happened")  # type: ignore[arg-type]
    assert error.kind in KINDS
    assert error.status == STATUS[error.kind]
    assert error.retryable is (error.kind in RETRYABLE)
    assert kind.__doc__
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", KINDS)
def test_kinds_of_upstreams(kind: errors.ErrorKind) -> None:
    error = upstream_error(kind, "what happened", retry_after_s=1.5, code="x", request_id="r")
    assert isinstance(error, errors.UpstreamError)
    assert (error.kind, error.status) == (kind, STATUS[kind])
    assert (error.message, str(error), error.retry_after_s, error.code) == ("what happened",) * 2 + (1.5, "x")
    # A class of a kind of its own is not lost to the general one.
    own = [each for each in TREE if issubclass(each, errors.UpstreamError) and each.kind == kind]
    assert type(error) in own or not own


def test_a_kind_on_one_error_is_no_kind_of_all() -> None:
    error = upstream_error("timeout.idle", "x")
    assert error.kind == "timeout.idle"
    assert errors.UpstreamTimeout.kind == "timeout.total"
    assert upstream_error("timeout.total", "x", status=599).status == 599


def test_decode_errors_name_their_path() -> None:
    error = errors.DecodeError("messages[2].role", "expected a string")
    assert (error.message, error.param) == ("messages[2].role: expected a string", "messages[2].role")
    assert errors.DecodeError("", "not JSON").param is None


def test_what_an_error_shows_of_itself() -> None:
    error = errors.AuthError("who?", headers={"x": "secret"}, raw=b"secret")
    assert repr(error) == "AuthError(auth, 401, 'who?')"


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_format_says_every_kind(format: str, kind: errors.ErrorKind) -> None:
    codec = registry.codec(format)
    for error in (upstream_error(kind, "what happened"), GatewayError("what happened", kind=kind, retry_after_s=1.2)):
        status, headers, body = codec.encode_error(error, "req_1")
        assert status == STATUS[kind] or (kind, status) in {("overloaded", 529), ("unavailable", 529), ("quota", 400)}
        assert headers.get("retry-after") == ("2" if error.retry_after_s else None)
        parsed = json.loads(body)["error"]
        said, word = (
            (parsed, "") if format.startswith("ollama.") else (parsed["message"], parsed[_WORD.get(format, "type")])
        )
        assert "what happened" in said
        assert isinstance(word, str)
