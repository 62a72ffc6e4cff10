"""Which paths are passed on, whose they are, and which spellings of one are refused."""

from __future__ import annotations

import pytest
from headgate.gateway import registry
from headgate.gateway.doors import COUNTING, DOORS, OPERATIONS, PASSED
from headgate.gateway.errors import CallerError
from headgate.gateway.passing.paths import (
    ANTHROPIC,
    GEMINI,
    OPENAI,
    Api,
    api_of,
    check_plain,
    is_below,
    is_kept,
    is_never_passed,
    model_at,
    place_of,
)


def test_the_formats_are_those_that_rules_know() -> None:
    assert (OPENAI, ANTHROPIC, GEMINI) == PASSED
    assert set(PASSED) <= set(registry.names("codecs"))
    for format in PASSED:
        assert registry.codec(format).format == format


@pytest.mark.parametrize(
    ("path", "api", "format", "spelled", "kept"),
    [
        ("/v1/audio/speech", "", OPENAI, "/v1/audio/speech", False),
        ("/audio/transcriptions", "", OPENAI, "/v1/audio/transcriptions", False),
        ("/v1/audio/voices/v1", "", OPENAI, "/v1/audio/voices/v1", True),
        ("/v1/images/generations", "", OPENAI, "/v1/images/generations", False),
        ("/v1/realtime", "", OPENAI, "/v1/realtime", False),
        ("/v1/realtime/client_secrets", "", OPENAI, "/v1/realtime/client_secrets", True),
        ("/v1/files", "", OPENAI, "/v1/files", True),
        ("/v1/files", "anthropic", ANTHROPIC, "/v1/files", True),
        ("/v1/files/abc", "gemini", GEMINI, "/v1/files/abc", True),
        ("/v1/batches", "anthropic", OPENAI, "/v1/batches", True),
        ("/v1/skills", "", OPENAI, "/v1/skills", True),
        ("/v1/skills", "anthropic", ANTHROPIC, "/v1/skills", True),
        ("/v1/messages/batches/m1/results", "", ANTHROPIC, "/v1/messages/batches/m1/results", True),
        ("/v1/complete", "", ANTHROPIC, "/v1/complete", False),
        ("/v1/chat/completions/c1", "", OPENAI, "/v1/chat/completions/c1", True),
        ("/v1/models/ft:gpt-4o:me::1", "", OPENAI, "/v1/models/ft:gpt-4o:me::1", True),
        ("/v1/threads/t/runs", "", OPENAI, "/v1/threads/t/runs", True),
        ("/v1beta/files/f1", "", GEMINI, "/v1beta/files/f1", True),
        ("/v1beta/files:register", "", GEMINI, "/v1beta/files:register", True),
        ("/upload/v1beta/files", "", GEMINI, "/upload/v1beta/files", True),
        ("/upload/v1/files", "", GEMINI, "/upload/v1/files", True),
        ("/v1/cachedContents", "", GEMINI, "/v1/cachedContents", True),
        ("/v1beta/models/m:embedContent", "", GEMINI, "/v1beta/models/m:embedContent", False),
        ("/v1/models/m:predictLongRunning", "", GEMINI, "/v1/models/m:predictLongRunning", True),
        ("/v1beta/models/m/operations/o1", "", GEMINI, "/v1beta/models/m/operations/o1", True),
        ("/v1beta/environments/e/files/a", "", GEMINI, "/v1beta/environments/e/files/a", True),
        ("/v1/environments", "", ANTHROPIC, "/v1/environments", True),
        ("/v1/environments", "gemini", GEMINI, "/v1/environments", True),
        ("/v1/agents", "", OPENAI, "/v1/agents", True),
        ("/v1/agents", "anthropic", ANTHROPIC, "/v1/agents", True),
        ("/v1/decisions", "", OPENAI, "/v1/decisions", False),
        ("/v1/tunnels/t/reveal_token", "", ANTHROPIC, "/v1/tunnels/t/reveal_token", True),
    ],
)
def test_what_is_passed_on(path: str, api: Api, format: str, spelled: str, kept: bool) -> None:
    assert place_of(path, api) == (format, spelled, kept)
    assert is_kept(spelled) is kept


@pytest.mark.parametrize(
    "path",
    [
        *("/", "/v1", "/v1/nonsense", "/v1/filesystem", "/v2/files", "/v1beta/filesx", "/api/chat", "/healthz"),
        *("/v1/models", "/v1/organization/users", "/v1/responses/resp_1", "/v1/realtimes", "/v1beta/models/m:invent"),
    ],
)
def test_what_is_not(path: str) -> None:
    assert place_of(path) is place_of(path, "anthropic") is place_of(path, "gemini") is None


@pytest.mark.parametrize("path", [path for paths in (*DOORS.values(), *OPERATIONS.values()) for path in paths])
def test_no_door_is_passed_on(path: str) -> None:
    assert place_of(path.replace("{model}", "m")) is None


@pytest.mark.parametrize("path", [path for paths in COUNTING.values() for path in paths])
def test_no_count_is_passed_on(path: str) -> None:
    assert place_of(path.replace("{model}", "m")) is None


def test_the_administration_of_an_account_is_never() -> None:
    assert is_never_passed("/v1/organization/admin_api_keys") and is_never_passed("/v1/organizations/me")
    assert not is_never_passed("/v1/organizational")


def test_who_asks() -> None:
    assert api_of({"anthropic-version"}, set()) == "anthropic"
    assert api_of({"x-goog-api-key"}, set()) == api_of(set(), {"key"}) == "gemini"
    assert api_of({"authorization"}, {"after"}) == ""


def test_below() -> None:
    assert is_below("/v1/files", "/v1/files") and is_below("/v1/files/a", "/v1/files")
    assert is_below("/v1beta/files:register", "/v1beta/files")
    assert not is_below("/v1/filesystem", "/v1/files") and not is_below("/v1", "/v1/files")


@pytest.mark.parametrize(
    "path", ["/v1/files/a.b~c-d_e", "/v1beta/models/m:embedContent", "/v1/models/ft:a::b", "/v1/%20x"]
)
def test_plain_paths(path: str) -> None:
    check_plain(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/v1/files/../x",
            "/v1/files/%2e%2E/x",
            "/v1/files/./x",
            "/v1/files//x",
            "/v1/files/",
            "/v1/a%2fb",
            "/v1/a%5cb",
        ),
        *(
            "/v1/a\\b",
            "/v1/a%00",
            "/v1/a%0a",
            "/v1/a%252e",
            "/v1/a%3fb",
            "/v1/a b",
            "/v1/a%23",
            "",
            "v1/files",
            "/v1/é",
        ),
    ],
)
def test_paths_that_could_be_read_in_two_ways(path: str) -> None:
    with pytest.raises(CallerError):
        check_plain(path)


def test_models_in_paths() -> None:
    assert model_at("/v1beta/models/gemini-x:embedContent") == "gemini-x"
    assert model_at("/v1/files/gemini-x") == ""


# -- what official SDKs ask for


RESOURCES: dict[str, tuple[str, ...]] = {
    "": (
        *("agents", "assistants", "audio/speech", "batches", "chat/completions/x/messages", "chatkit/sessions"),
        *(
            "containers",
            "content_provenance_checks",
            "conversations",
            "decisions",
            "evals",
            "files",
            "fine_tuning/jobs",
        ),
        *("images/edits", "live/calls", "models/x", "realtime/calls", "responses/compact", "safety/alerts/x"),
        *("safety/cases/x", "skills", "threads/runs", "uploads/x/parts", "vaults", "vector_stores", "videos"),
    ),
    "anthropic": (
        *("agents", "complete", "deployment_runs", "deployments", "dreams", "environments", "files", "memory_stores"),
        *("messages/batches", "sessions", "skills", "tunnels", "tunnels/x/certificates", "user_profiles", "vaults"),
    ),
    "gemini": (
        *("agents", "auth_tokens", "batches", "cachedContents", "credentials", "decisions", "environments"),
        *("environments/x/files/y", "fileSearchStores", "files", "interactions", "operations", "triggers/x/executions"),
        *("tunedModels", "tuningJobs", "voices", "webhooks", "webhooks/x:rotateSigningSecret"),
    ),
}
"""What openai 3.52, anthropic 2.11 and google-genai 3.4 ask for, and no door serves."""
ASKED = [(api, path) for api, paths in RESOURCES.items() for path in paths]


@pytest.mark.parametrize(("api", "path"), ASKED)
def test_what_an_official_sdk_asks_for_is_known(api: Api, path: str) -> None:
    """It is passed on or a typed 501, never a 404, as if there were no such thing."""
    place = place_of(("/v1beta/" if api == "gemini" else "/v1/") + path, api)
    assert place is not None and place.format == f"{api or 'openai'}.passthrough"
