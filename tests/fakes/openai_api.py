"""OpenAI's Chat Completions as its provider speaks it: what it refuses, and the bytes that it answers.

Sans-IO. Rules and messages follow the API's published reference, its SDK types, and errors quoted in public issue
trackers (November 2026).
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from openai.types.chat import completion_create_params

from .script import Redacted, Say, Script, Think, Use, pieces_of

_encode = msgspec.json.encode
TOP_LEVEL = frozenset(completion_create_params.CompletionCreateParamsNonStreaming.__annotations__) | frozenset(
    completion_create_params.CompletionCreateParamsBase.__annotations__
)
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
_MEMBERS = {
    "system": {"role", "content", "name"},
    "developer": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "function_call", "audio", "annotations"},
    "tool": {"role", "content", "tool_call_id"},
    "function": {"role", "content", "name"},
}
_PARTS = {
    "system": {"text"},
    "developer": {"text"},
    "user": {"text", "image_url", "input_audio", "file"},
    "assistant": {"text", "refusal"},
    "tool": {"text"},
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REASONING_MODEL = re.compile(r"(o\d|gpt-5|gpt-6)")


class Refusal(Exception):
    """A request that the API answers with an error."""

    def __init__(
        self,
        message: str,
        param: str | None = None,
        code: str | None = None,
        status: int = 400,
        kind: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.status = status
        self.kind = kind or "invalid_request_error"


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> bytes:
    """The error object of the API, indented as it sends it."""
    body = _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})
    return msgspec.json.format(body, indent=2)


def scripted_error(script: Script) -> bytes:
    """The body for an HTTP error that a test asked for."""
    kinds: dict[int, tuple[str, str | None, str]] = {
        401: ("invalid_request_error", "invalid_api_key", "Incorrect API key provided."),
        403: ("permission_error", None, "You are not allowed to sample from this model."),
        404: ("invalid_request_error", "model_not_found", "The model does not exist."),
        413: ("invalid_request_error", None, "The request is too large."),
        429: ("tokens", "rate_limit_exceeded", "Rate limit reached for this model. Please try again in 7s."),
        500: ("server_error", None, "The server had an error while processing your request."),
        503: ("server_error", None, "The engine is currently overloaded, please try again later."),
    }
    kind, code, message = kinds.get(script.status, ("server_error", None, "Something went wrong."))
    return error_body(script.error_message or message, script.error_kind or kind, None, code)


# --- what it refuses


def validate(body: Any, *, extra: frozenset[str] = frozenset(), reasoning_field: bool = False) -> None:
    """Raise Refusal for what the API would. ``reasoning_field``: the dialect whose messages carry reasoning_content."""
    if not isinstance(body, dict):
        raise Refusal("We could not parse the JSON body of your request.")
    for name in body:
        if name not in TOP_LEVEL | extra:
            raise Refusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
    for name in ("model", "messages"):
        if name not in body:
            raise Refusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    messages = body["messages"]
    _want(isinstance(body["model"], str), "model", "expected a string")
    _want(isinstance(messages, list), "messages", "expected an array of objects")
    if not messages:
        raise Refusal(
            "Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages", "empty_array"
        )
    if "max_tokens" in body and _REASONING_MODEL.match(body["model"]):
        raise Refusal(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    if "stream_options" in body and body["stream_options"] is not None and not body.get("stream"):
        raise Refusal("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    for name, low, high in (("temperature", 0, 2), ("top_p", 0, 1), ("frequency_penalty", -2, 2)):
        value = body.get(name)
        if value is not None and not low <= value <= high:
            raise Refusal(f"Invalid '{name}': expected a value between {low} and {high}.", name, "decimal_out_of_range")
    _validate_tools(body)
    _validate_response_format(body.get("response_format"))
    owed: dict[str, None] = {}
    for index, message in enumerate(messages):
        owed = _validate_message(f"messages[{index}]", message, owed, reasoning_field)
    if owed:
        raise _unanswered(len(messages), owed)


def _want(claim: bool, param: str, why: str) -> None:
    if not claim:
        raise Refusal(f"Invalid type for '{param}': {why}.", param, "invalid_type")


def _unanswered(index: int, owed: dict[str, None]) -> Refusal:
    return Refusal(
        "An assistant message with 'tool_calls' must be followed by tool messages responding to each 'tool_call_id'. The "
        f"following tool_call_ids did not have response messages: {', '.join(owed)}",
        f"messages.[{index}].role",
    )


def _validate_message(path: str, message: Any, owed: dict[str, None], reasoning_field: bool) -> dict[str, None]:
    """Check one message; ``owed`` are the call ids that await their tool message. Returns those that still do."""
    _want(isinstance(message, dict), path, "expected an object")
    role = message.get("role")
    if role not in ROLES:
        raise Refusal(f"Invalid value: '{role}'. Supported values are: {ROLES}.", f"{path}.role", "invalid_value")
    members = _MEMBERS[role] | ({"reasoning_content"} if reasoning_field and role == "assistant" else set())
    for name in message:
        if name not in members:
            raise Refusal(f"Unknown parameter: '{path}.{name}'.", f"{path}.{name}", "unknown_parameter")
    if role == "tool":
        if message.get("tool_call_id") not in owed:
            raise Refusal(
                "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with 'tool_calls'.",
                f"{path}.role",
            )
        owed = {call_id: None for call_id in owed if call_id != message["tool_call_id"]}
    elif owed:
        raise _unanswered(int(path[9:-1]), owed)
    calls = message.get("tool_calls")
    content = message.get("content")
    if content is None and not (role == "assistant" and (calls or message.get("refusal"))):
        raise Refusal(f"Invalid value for '{path}.content': expected a string, got null.", f"{path}.content")
    if isinstance(content, list):
        if not content:
            raise Refusal(f"Invalid '{path}.content': empty array.", f"{path}.content", "empty_array")
        for number, part in enumerate(content):
            _validate_part(f"{path}.content[{number}]", part, role)
    else:
        _want(content is None or isinstance(content, str), f"{path}.content", "expected a string or an array")
    if calls is not None:
        if not isinstance(calls, list) or not calls:
            raise Refusal(f"Invalid '{path}.tool_calls': empty array.", f"{path}.tool_calls", "empty_array")
        for number, call in enumerate(calls):
            _validate_call(f"{path}.tool_calls[{number}]", call)
        owed = {call["id"]: None for call in calls}
    return owed


def _validate_part(path: str, part: Any, role: str) -> None:
    _want(isinstance(part, dict), path, "expected an object")
    kind = part.get("type")
    if kind not in _PARTS.get(role, set()):
        raise Refusal(f"Invalid value: '{kind}'.", f"{path}.type", "invalid_value")
    if set(part) - {"type", kind, "prompt_cache_breakpoint"}:
        unknown = sorted(set(part) - {"type", kind})[0]
        raise Refusal(f"Unknown parameter: '{path}.{unknown}'.", f"{path}.{unknown}", "unknown_parameter")
    if kind in ("text", "refusal"):
        _want(isinstance(part.get(kind), str), f"{path}.{kind}", "expected a string")
    if kind == "image_url":
        _want(isinstance(part.get(kind), dict), f"{path}.image_url", "expected an object")
        url = part[kind].get("url")
        _want(isinstance(url, str), f"{path}.image_url.url", "expected a string")
        if not url.startswith(("http://", "https://", "data:image/")):
            raise Refusal(f"Invalid '{path}.image_url.url'.", f"{path}.image_url.url", "invalid_value")


def _validate_call(path: str, call: Any) -> None:
    _want(isinstance(call, dict), path, "expected an object")
    if call.get("type") != "function":
        raise Refusal(f"Missing required parameter: '{path}.type'.", f"{path}.type", "missing_required_parameter")
    if not isinstance(call.get("id"), str):
        raise Refusal(f"Missing required parameter: '{path}.id'.", f"{path}.id", "missing_required_parameter")
    if len(call["id"]) > 40:
        raise Refusal(
            f"Invalid '{path}.id': string too long. Expected a string with maximum length 40.",
            f"{path}.id",
            "string_above_max_length",
        )
    function = call.get("function")
    _want(isinstance(function, dict), f"{path}.function", "expected an object")
    _want(isinstance(function.get("arguments"), str), f"{path}.function.arguments", "expected a string")
    _validate_name(f"{path}.function.name", function.get("name"))


def _validate_name(path: str, name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise Refusal(
            f"Invalid '{path}': string does not match pattern. Expected a string that matches '^[a-zA-Z0-9_-]+$'.",
            path,
            "invalid_value",
        )


def _validate_tools(body: dict[str, Any]) -> None:
    tools = body.get("tools")
    if tools is None:
        for name in ("tool_choice", "parallel_tool_calls"):
            if body.get(name) not in (None, "none", "auto"):
                raise Refusal(f"Invalid value for '{name}': '{name}' is only allowed when 'tools' are specified.", name)
        return
    if not isinstance(tools, list) or not tools:
        raise Refusal("Invalid 'tools': empty array. Expected an array with minimum length 1.", "tools", "empty_array")
    for index, tool in enumerate(tools):
        path = f"tools[{index}]"
        if set(tool) != {"type", "function"} or tool["type"] != "function":
            raise Refusal(f"Unknown parameter or type in '{path}': {sorted(tool)}.", path, "unknown_parameter")
        unknown = set(tool["function"]) - {"name", "description", "parameters", "strict"}
        if unknown:
            name = f"{path}.function.{sorted(unknown)[0]}"
            raise Refusal(f"Unknown parameter: '{name}'.", name, "unknown_parameter")
        _validate_name(f"{path}.function.name", tool["function"].get("name"))
    choice = body.get("tool_choice")
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise Refusal(f"Invalid value: '{choice}'.", "tool_choice", "invalid_value")


def _validate_response_format(shape: Any) -> None:
    if shape is None:
        return
    if shape.get("type") not in ("text", "json_object", "json_schema"):
        raise Refusal(f"Invalid value: '{shape.get('type')}'.", "response_format.type", "invalid_value")
    if shape["type"] != "json_schema":
        return
    schema = shape.get("json_schema", {})
    if "name" not in schema:
        name = "response_format.json_schema.name"
        raise Refusal(f"Missing required parameter: '{name}'.", name, "missing_required_parameter")
    _validate_name("response_format.json_schema.name", schema["name"])
    if schema.get("strict") and schema["schema"].get("additionalProperties") is not False:
        raise Refusal(
            f"Invalid schema for response_format '{schema['name']}': In context=(), 'additionalProperties' is required to be "
            "supplied and to be false.",
            "response_format",
        )


# --- what it answers


def _usage(script: Script) -> dict[str, Any]:
    tokens = script.tokens
    prompt = tokens.fresh + tokens.cached + tokens.written
    return {
        "prompt_tokens": prompt,
        "completion_tokens": tokens.output,
        "total_tokens": prompt + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": tokens.reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


_FINISH = {"end": "stop", "length": "length", "tool": "tool_calls", "sequence": "stop", "filter": "content_filter"}


def _envelope(kind: str, number: int, model: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number:024d}", "object": kind, "created": 1763600000 + number, "model": model}


def call_id(number: int, index: int) -> str:
    """The id of the call ``index`` of answer ``number``."""
    return f"call_{number:04d}{index:020d}"


def whole(script: Script, number: int, model: str) -> bytes:
    """The body of a whole answer."""
    message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    thoughts = [part.text for part in script.parts if isinstance(part, Think)]
    if thoughts:
        message["reasoning_content"] = "".join(thoughts)
    words = [part.text for part in script.parts if isinstance(part, Say)]
    if words:
        message["content"] = "".join(words)
    calls = [
        {
            "id": use.id or call_id(number, index),
            "type": "function",
            "function": {"name": use.name, "arguments": use.arguments},
        }
        for index, use in enumerate(part for part in script.parts if isinstance(part, Use))
    ]
    if calls:
        message["tool_calls"] = calls
    body = {
        **_envelope("chat.completion", number, model),
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": _FINISH[script.ended]}],
        "usage": _usage(script),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }
    return msgspec.json.format(_encode(body), indent=2)


def frames(script: Script, number: int, model: str, *, include_usage: bool) -> list[bytes]:
    """The SSE frames of a streamed answer: role first, deltas, the finish, usage if asked for, ``[DONE]``."""
    envelope = {
        **_envelope("chat.completion.chunk", number, model),
        "service_tier": "default",
        "system_fingerprint": "fp_fake",
    }

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        usage = {"usage": None} if include_usage else {}
        return b"data: %b\n\n" % _encode({**envelope, "choices": [choice], **usage, "obfuscation": "x7Qq"})

    out = [chunk({"role": "assistant", "content": "", "refusal": None})]
    calls = 0
    for part in script.parts:
        if isinstance(part, Think):
            out += [chunk({"reasoning_content": piece}) for piece in pieces_of(part.text, part.pieces)]
        elif isinstance(part, Say):
            out += [chunk({"content": piece}) for piece in pieces_of(part.text, part.pieces)]
        elif isinstance(part, Use):
            start = {"index": calls, "id": part.id or call_id(number, calls), "type": "function"}
            out.append(chunk({"tool_calls": [{**start, "function": {"name": part.name, "arguments": ""}}]}))
            for piece in pieces_of(part.arguments, part.pieces):
                out.append(chunk({"tool_calls": [{"index": calls, "function": {"arguments": piece}}]}))
            calls += 1
        else:
            assert not isinstance(part, Redacted), "OpenAI has no redacted thinking"
    out.append(chunk({}, _FINISH[script.ended]))
    if include_usage:
        out.append(b"data: %b\n\n" % _encode({**envelope, "choices": [], "usage": _usage(script), "obfuscation": "pZ"}))
    out.append(b"data: [DONE]\n\n")
    return out


def error_frame(script: Script) -> bytes:
    """The frame by which a stream tells of an error."""
    error = {"message": "The server had an error while processing your request.", "type": "server_error"}
    return b"data: %b\n\n" % _encode({"error": {**error, "param": None, "code": None}})
