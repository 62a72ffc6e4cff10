"""Where the model of a request stands that is passed on, how it is renamed, and whose an upload is."""

from __future__ import annotations

import pytest
from headgate.gateway.errors import CallerError
from headgate.gateway.passing.request import Passed, Socket, Upload
from headgate.gateway.server.uploads import Uploads

FORM = b'--b\r\ncontent-disposition: form-data; name="model"\r\ncontent-type: text/plain\r\n\r\nwhisper-1\r\n--b--\r\n'
FIELD = b'--b\r\nContent-Disposition: form-data; name="file"; filename="model"\r\n\r\nx\r\n--b--\r\n'


class Rest:
    """What follows the head of a body."""

    begun = False
    count = 0

    async def read(self) -> bytes:
        return b""


def held(body: bytes, media_type: str, *, rest: bool = False) -> Passed:
    upload = Upload(body, Rest() if rest else None, None if rest else len(body))
    return Passed("POST", "/v1/audio/x", upload=upload, media_type=media_type, boundary="b")


def form(*parts: tuple[str, str]) -> bytes:
    """A form: what stands after ``form-data;`` of each part, and its value."""
    written = [f"--b\r\nContent-Disposition: form-data; {name}\r\n\r\n{value}\r\n" for name, value in parts]
    return "".join([*written, "--b--\r\n"]).encode()


EMBEDDED = form(('name="model"', "cheap")).decode().replace("--b", "--c")
LONG = b'{"prompt": "\\"model\\": \\"no\\" {[", "opts": {"model": "no"}, "list": ["model", {"model": 1}], '


@pytest.mark.parametrize(
    ("passed", "model"),
    [
        (held(FORM, "multipart/form-data"), "whisper-1"),
        (held(FORM, "multipart/form-data", rest=True), "whisper-1"),
        (held(FIELD, "multipart/form-data"), ""),
        (held(b'{"model": "tts-1"}', "application/json"), "tts-1"),
        (held(b'{"model": 5}', "application/json"), ""),
        (held(b"[]", "application/json"), ""),
        (held(form(('name="model_options"', "x"), ('name="model"', "w")), "multipart/form-data"), "w"),
        (held(form(("name=model", "w")), "multipart/form-data"), "w"),
        (held(form(('name="file"; filename="a"', EMBEDDED), ('name="model"', "w")), "multipart/form-data"), "w"),
        (held(form(('name="file"; filename="; name=model"', "x")), "multipart/form-data"), ""),
        (held(form(('name="model"', "a\r\nb")), "multipart/form-data"), ""),
        (held(form(('name="model"', "whis"))[:-12], "multipart/form-data", rest=True), ""),
        (held(b'{"model": "tts-1", "input": "', "application/json", rest=True), "tts-1"),
        (held(LONG + b'"model" : "a\\u002db", "x": "', "application/json", rest=True), "a-b"),
        (held(LONG + b'"mod\\u0065l":"a", "x": "', "application/json", rest=True), "a"),
        (held(LONG + b'"x": "\\"model\\": \\"no', "application/json", rest=True), ""),
        (held(LONG + b'"model": "cut', "application/json", rest=True), ""),
        (held(b'{"a": {}} "model": "x"', "application/json", rest=True), ""),
        (held(b'["model", "x", {"model": "y"}, ', "application/json", rest=True), ""),
        (held(b'{"model": "tts-1"}', "text/plain"), ""),
        (Passed("POST", "/v1beta/models/a%20b:embedContent"), "a b"),
        (Passed("GET", "/v1/realtime", "x=1&model=gpt%2Dx", socket=Socket((), 1)), "gpt-x"),
        (Passed("GET", "/v1/files", "model=x"), ""),
    ],
)
def test_models(passed: Passed, model: str) -> None:
    assert passed.model == model
    renamed = passed.renamed("other/model")
    if model:
        assert renamed.model == "other/model"
        assert renamed.upload.length is None or renamed.upload.length == len(renamed.upload.head)
    else:
        assert (renamed.path, renamed.query, renamed.upload.head) == (passed.path, passed.query, passed.upload.head)


@pytest.mark.parametrize(
    "passed",
    [
        held(form(('name="model"', "cheap"), ('name="model"', "dear")), "multipart/form-data"),
        held(form(('name="model"', "cheap"), ('name="model"', "cheap")), "multipart/form-data"),
        held(b'{"model": "cheap", "model": "dear"}', "application/json"),
    ],
)
def test_a_body_that_names_two_models_is_refused(passed: Passed) -> None:
    """Rules would look at the one, and the provider take the other."""
    with pytest.raises(CallerError):
        _ = passed.model
    with pytest.raises(CallerError):
        passed.renamed("other")


def test_renaming_touches_nothing_else() -> None:
    body = LONG + b'"model" : "a", "x": "'
    assert held(body, "application/json", rest=True).renamed("b").upload.head == body.replace(b'"a"', b'"b"')
    assert held(FORM, "multipart/form-data").renamed("w").upload.head == FORM.replace(b"whisper-1", b"w")
    socket = Socket(("realtime",), 1)
    talk = Passed("GET", "/v1/realtime", "a=%20&model=x&b=model", socket=socket).renamed("y z")
    assert talk.query == "a=%20&model=y%20z&b=model"
    assert Passed("POST", "/v1beta/models/m:embedContent").renamed("n").path == "/v1beta/models/n:embedContent"


def test_a_body_is_spent_once_its_rest_was_asked_for() -> None:
    rest = Rest()
    upload = Upload(b"abc", rest, 10)
    assert not upload.is_spent and upload.received == 3
    rest.begun, rest.count = True, 4
    assert upload.is_spent and upload.with_head(b"ab").is_spent and upload.received == 7
    assert not Upload(b"abc", None, 3).is_spent


def test_nothing_secret_is_shown() -> None:
    assert repr(Passed("GET", "/v1/files", "key=sk-secret")) == "Passed(GET /v1/files)"


def test_uploads_are_those_who_began_them() -> None:
    uploads = Uploads()
    url = "https://x/upload/v1beta/files?upload_id=42&upload_protocol=resumable"
    uploads.note({}, {"x-goog-upload-url": url}, "sk-a", 0.0)
    assert uploads.key_for({"upload_id": "42"}, 1.0) == "sk-a"
    assert uploads.key_for({"upload_id": "43"}, 1.0) is uploads.key_for({}, 1.0) is None
    assert uploads.key_for({"upload_id": "42"}, 24 * 3600.0) is None
    uploads.note({"upload_id": "42"}, {"x-goog-upload-status": "active"}, "sk-b", 2.0)
    assert uploads.key_for({"upload_id": "42"}, 3.0) == "sk-a"
    uploads.note({"upload_id": "42"}, {"x-goog-upload-status": "final"}, "sk-a", 4.0)
    assert uploads.key_for({"upload_id": "42"}, 5.0) is None


def test_an_upload_opens_nothing_else() -> None:
    uploads = Uploads()
    uploads.note({}, {"x-goog-upload-url": "https://x/?upload_id=42"}, "sk-a", 0.0)
    query, command = {"upload_id": "42"}, "x-goog-upload-command"

    def vouched(path: str, headers: dict[str, str]) -> bool:
        uploads.vouch(path, query, headers, 1.0)
        return headers.get("x-goog-api-key") == "sk-a"

    assert vouched("/upload/v1beta/files", {command: "upload, finalize"})
    assert vouched("/upload/v1beta/files", {command: "query"})
    assert not vouched("/upload/v1beta/files", {command: "start"}) and not vouched("/upload/v1beta/files", {})
    assert not vouched("/v1beta/files", {command: "upload"})


def test_uploads_are_bounded() -> None:
    uploads = Uploads()
    for number in range(10_001):
        uploads.note({}, {"x-goog-upload-url": f"https://x/?upload_id={number}"}, "k", 0.0)
    assert uploads.key_for({"upload_id": "0"}, 1.0) is None
    assert uploads.key_for({"upload_id": "1"}, 1.0) == uploads.key_for({"upload_id": "10000"}, 1.0) == "k"
