"""What Anthropic's Messages API refuses, versions 2023-06-01 and 2026-10-21.

Sans-IO. Rules and messages follow the published reference and migration guide, the SDK types, and errors quoted in public
issue trackers (November 2026). Which model takes what is read off the version in its name; a name without one takes all.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final

from anthropic.types import message_create_params

VERSIONS: Final = ("2023-06-01", "2026-10-21")
SAMPLING: Final = ("temperature", "top_p", "top_k")
TOP_LEVEL: Final = frozenset(message_create_params.MessageCreateParamsBase.__annotations__) | {"stream", *SAMPLING}
BETA: Final = frozenset(["context_management", "mcp_servers", "fallbacks", "compaction", "output_format"])
_MEMBERS: Final[dict[str, set[str]]] = {
    "text": {"text", "citations", "cache_control"},
    "image": {"source", "cache_control"},
    "document": {"source", "cache_control", "citations", "context", "title"},
    "search_result": {"content", "source", "title", "citations", "cache_control"},
    "thinking": {"thinking", "signature"},
    "redacted_thinking": {"data"},
    "tool_use": {"id", "input", "name", "cache_control", "caller"},
    "tool_result": {"tool_use_id", "content", "is_error", "cache_control"},
}
_USER: Final = {"text", "image", "document", "search_result", "tool_result"}
_ASSISTANT: Final = {"text", "thinking", "redacted_thinking", "tool_use", "document"}
_MODEL: Final = re.compile(r"claude-[a-z]+-(\d+)(?:-(\d{1,2}))?(?:-|$)")
_TOOL_ID: Final = re.compile(r"[a-zA-Z0-9_-]+")
_TOOL_NAME: Final = re.compile(r"[a-zA-Z0-9_-]{1,128}")


class Refusal(Exception):
    """A request that the API answers with an error."""

    def __init__(self, message: str, status: int = 400, kind: str = "invalid_request_error") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.kind = kind


class Issued:
    """Thinking that was handed out: only this may come back, byte for byte."""

    def __init__(self) -> None:
        self.signatures: dict[str, str] = {}
        self.redacted: set[str] = set()

    def sign(self, text: str, number: int) -> str:
        """Return the signature of ``text`` in answer ``number``."""
        digest = hashlib.sha512(f"{number}:{text}".encode()).digest()
        return "Ep+/" + base64.b64encode(digest * 3).decode()


def _version_of(model: str) -> tuple[int, int] | None:
    found = _MODEL.match(model)
    return None if found is None else (int(found[1]), int(found[2] or 0))


def validate(body: Any, headers: Mapping[str, str], issued: Issued, *, extra: frozenset[str] = frozenset()) -> None:
    """Raise Refusal for what the API would. ``headers``: lower-case names."""
    version = headers.get("anthropic-version")
    if version is None:
        raise Refusal("anthropic-version: header is required")
    if version not in VERSIONS:
        raise Refusal(f'anthropic-version: "{version}" is not a valid version')
    if not isinstance(body, dict):
        raise Refusal("The request body is not valid JSON: expected an object")
    known = TOP_LEVEL | extra | (BETA if "anthropic-beta" in headers else frozenset())
    for name in body:
        if name not in known or (version == "2026-10-21" and name in SAMPLING):
            raise Refusal(f"{name}: Extra inputs are not permitted")
    for name in ("model", "max_tokens", "messages"):
        if name not in body:
            raise Refusal(f"{name}: Field required")
    _want(isinstance(body["model"], str), "model", "Input should be a valid string")
    _want(type(body["max_tokens"]) is int, "max_tokens", "Input should be a valid integer")
    _want(isinstance(body["messages"], list), "messages", "Input should be a valid list")
    _want(bool(body["messages"]), "messages", "at least one message is required")
    _validate_settings(body)
    if isinstance(body.get("system"), list):
        for index, block in enumerate(body["system"]):
            _want(
                isinstance(block, dict) and block.get("type") == "text",
                f"system.{index}.type",
                "Input should be 'text'",
            )
            _validate_block(f"system.{index}", block, {"text"}, issued, version)
    _validate_messages(body, issued, version)


def _want(claim: bool, path: str, why: str) -> None:
    if not claim:
        raise Refusal(f"{path}: {why}")


def _validate_settings(body: dict[str, Any]) -> None:
    model = _version_of(body["model"])
    for name, high in (("temperature", 1), ("top_p", 1)):
        if name in body:
            value = body[name]
            _want(isinstance(value, int | float) and 0 <= value <= high, name, f"Input should be between 0 and {high}")
    if model is not None and model >= (4, 5) and "temperature" in body and "top_p" in body:
        raise Refusal("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")
    for name in set(body.get("metadata") or {}) - {"user_id"}:
        raise Refusal(f"metadata.{name}: Extra inputs are not permitted")
    sequences = body.get("stop_sequences", [])
    _want(isinstance(sequences, list), "stop_sequences", "Input should be a valid list")
    for index, text in enumerate(sequences):
        _want(bool(text.strip()), f"stop_sequences.{index}", "each stop sequence must contain non-whitespace")
    _validate_tools(body)
    _validate_thinking(body, model)
    shape = (body.get("output_config") or {}).get("format")
    if shape is not None:
        _want(shape.get("type") == "json_schema", "output_config.format.type", "Input should be 'json_schema'")
        _want(isinstance(shape.get("schema"), dict), "output_config.format.schema", "Field required")
        _want(set(shape) == {"type", "schema"}, "output_config.format", "Extra inputs are not permitted")
        if shape["schema"].get("type") == "object" and shape["schema"].get("additionalProperties") is not False:
            raise Refusal(
                "output_config.format.schema: For 'object' type, 'additionalProperties' must be explicitly set to false"
            )


def _validate_tools(body: dict[str, Any]) -> None:
    names = set()
    for index, tool in enumerate(body.get("tools") or []):
        path = f"tools.{index}"
        if "type" in tool and tool["type"] not in ("custom", None):
            continue
        unknown = set(tool) - set(
            ["name", "description", "input_schema", "type", "cache_control", "strict", "eager_input_streaming"]
        )
        _want(not unknown, f"{path}.{min(unknown, default='')}", "Extra inputs are not permitted")
        _want(isinstance(tool.get("name"), str), f"{path}.name", "Field required")
        _want(
            bool(_TOOL_NAME.fullmatch(tool["name"])),
            f"{path}.name",
            "String should match pattern '^[a-zA-Z0-9_-]{1,128}$'",
        )
        _want(isinstance(tool.get("input_schema"), dict), f"{path}.input_schema", "Field required")
        _want(tool["input_schema"].get("type") == "object", f"{path}.input_schema.type", "Input should be 'object'")
        _want(tool["name"] not in names, "tools", "Tool names must be unique.")
        names.add(tool["name"])
    choice = body.get("tool_choice")
    if choice is not None:
        _want(bool(names) or bool(body.get("tools")), "tool_choice", "may only be specified while providing tools")
        _want(
            choice.get("type") in ("auto", "any", "tool", "none"), "tool_choice.type", "Input should be a valid choice"
        )
        if choice["type"] == "tool":
            _want(
                choice.get("name") in names, "tool_choice", f"Tool '{choice.get('name')}' not found in provided tools"
            )


def _validate_thinking(body: dict[str, Any], model: tuple[int, int] | None) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = thinking.get("type")
    _want(kind in ("enabled", "disabled", "adaptive", "between_tools"), "thinking.type", "Input should be a valid type")
    if model is not None and kind == "enabled" and model >= (4, 7):
        raise Refusal('"thinking.type.enabled" is not supported for this model. Use "thinking.type.adaptive" instead.')
    if model is not None and kind == "adaptive" and model <= (4, 5):
        raise Refusal("adaptive thinking is not supported on this model")
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        _want(type(budget) is int, "thinking.enabled.budget_tokens", "Field required")
        _want(budget >= 1024, "thinking.enabled.budget_tokens", "Input should be greater than or equal to 1024")
        _want(body["max_tokens"] > budget, "max_tokens", "`max_tokens` must be greater than `thinking.budget_tokens`.")
    if kind in ("enabled", "adaptive"):
        if body.get("temperature", 1) != 1:
            raise Refusal("`temperature` may only be set to 1 when thinking is enabled or in adaptive mode.")
        if (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
            raise Refusal("Thinking may not be enabled when tool_choice forces tool use.")


def _validate_messages(body: dict[str, Any], issued: Issued, version: str) -> None:
    messages = body["messages"]
    model = _version_of(body["model"])
    owed: list[str] = []
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        _want(isinstance(message, dict), path, "Input should be an object")
        for name in set(message) - {"role", "content"}:
            raise Refusal(f"{path}.{name}: Extra inputs are not permitted")
        role, content = message.get("role"), message.get("content")
        if role == "system":
            if model is not None and model < (4, 8):
                raise Refusal("role 'system' is not supported on this model")
            _want(index > 0 and messages[index - 1]["role"] == "user", path, "a system message must follow a user turn")
        else:
            _want(role in ("user", "assistant"), f"{path}.role", "Input should be 'user' or 'assistant'")
        _want(index > 0 or role == "user", "messages", 'first message must use the "user" role')
        if isinstance(content, str):
            last = index == len(messages) - 1
            _want(bool(content) or (last and role == "assistant"), "messages", "text content blocks must be non-empty")
            blocks: list[Any] = [{"type": "text", "text": content}]
        else:
            _want(isinstance(content, list), f"{path}.content", "Input should be a valid list")
            _want(bool(content), f"{path}.content", "all messages must have non-empty content")
            blocks = content
            allowed = _USER if role == "user" else {"text"} if role == "system" else _ASSISTANT
            for number, block in enumerate(blocks):
                _validate_block(f"{path}.content.{number}", block, allowed, issued, version, role)
        owed = _validate_turn(path, index, blocks, role, owed)
    if owed:
        raise _unanswered(len(messages) - 1, owed)
    _validate_last(body, messages[-1], model)
    _validate_thinking_turn(body, messages)


def _validate_block(
    path: str, block: Any, allowed: set[str], issued: Issued, version: str, role: str | None = None
) -> None:
    _want(isinstance(block, dict), path, "Input should be an object")
    kind = block.get("type")
    _want(
        kind in allowed,
        f"{path}.type",
        f"Input tag '{kind}' found using 'type' does not match any of the expected tags",
    )
    unknown = set(block) - _MEMBERS[kind] - {"type"}
    _want(not unknown, f"{path}.{kind}.{min(unknown, default='')}", "Extra inputs are not permitted")
    if kind == "text":
        _want(isinstance(block.get("text"), str), f"{path}.text.text", "Input should be a valid string")
        _want(bool(block["text"]), "messages", "text content blocks must be non-empty")
        if role == "user" and version == "2026-10-21" and block.get("citations"):
            raise Refusal(f"{path}.text.citations: citations are not permitted on user text")
    elif kind == "image":
        _validate_image(path, block.get("source"))
    elif kind == "document" and role == "assistant" and version == "2026-10-21":
        raise Refusal(f"{path}: document blocks are not permitted in assistant messages")
    elif kind == "thinking":
        _want(isinstance(block.get("signature"), str), f"{path}.thinking.signature", "Field required")
        if issued.signatures.get(block["signature"]) != block.get("thinking"):
            raise Refusal(f"{path}: Invalid `signature` in `thinking` block")
    elif kind == "redacted_thinking":
        if block.get("data") not in issued.redacted:
            raise Refusal(f"{path}: Invalid `data` in `redacted_thinking` block")
    elif kind == "tool_use":
        _want(isinstance(block.get("id"), str), f"{path}.tool_use.id", "Field required")
        _want(
            bool(_TOOL_ID.fullmatch(block["id"])),
            f"{path}.tool_use.id",
            "String should match pattern '^[a-zA-Z0-9_-]+$'",
        )
        _want(isinstance(block.get("input"), dict), f"{path}.tool_use.input", "Input should be an object")
        _want(isinstance(block.get("name"), str), f"{path}.tool_use.name", "Field required")
    elif kind == "tool_result":
        _want(isinstance(block.get("tool_use_id"), str), f"{path}.tool_result.tool_use_id", "Field required")
        content = block.get("content", "")
        _want(isinstance(content, str | list), f"{path}.tool_result.content", "Input should be a valid list")
        for number, inner in enumerate(content if isinstance(content, list) else []):
            _validate_block(f"{path}.tool_result.content.{number}", inner, _USER - {"tool_result"}, issued, version)


def _validate_image(path: str, source: Any) -> None:
    _want(isinstance(source, dict), f"{path}.image.source", "Field required")
    if source.get("type") == "base64":
        _want(
            set(source) == {"type", "media_type", "data"},
            f"{path}.image.source.base64",
            "Field required or not permitted",
        )
        kinds = ("image/jpeg", "image/png", "image/gif", "image/webp")
        _want(
            source["media_type"] in kinds, f"{path}.image.source.base64.media_type", f"Input should be one of {kinds}"
        )
        try:
            base64.b64decode(source["data"], validate=True)
        except ValueError as fault:
            raise Refusal(f"{path}.image.source.base64.data: invalid base64 data") from fault
    else:
        _want(source.get("type") in ("url", "file"), f"{path}.image.source.type", "Input should be a valid source")
        if source["type"] == "url":
            _want(
                str(source.get("url")).startswith("http"),
                f"{path}.image.source.url.url",
                "Only HTTPS URLs are supported.",
            )


def _unanswered(index: int, owed: list[str]) -> Refusal:
    return Refusal(
        f"messages.{index}: `tool_use` ids were found without `tool_result` blocks immediately after: {', '.join(owed)}. Each "
        "`tool_use` block must have a corresponding `tool_result` block in the next message."
    )


def _validate_turn(path: str, index: int, blocks: list[Any], role: str, owed: list[str]) -> list[str]:
    """Check results against the calls of the turn before; return the calls that the next turn owes results for."""
    results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
    for number, tool_use_id in enumerate(results):
        if tool_use_id not in owed:
            raise Refusal(
                f"{path}.content.{number}: unexpected `tool_use_id` found in `tool_result` blocks: {tool_use_id}. Each "
                "`tool_result` block must have a corresponding `tool_use` block in the previous message."
            )
        if results.count(tool_use_id) > 1:
            raise Refusal(f"{path}: each tool_use must have a single result. Found multiple `tool_result` blocks")
    # The results stand first; words may follow.
    leading = [block["tool_use_id"] for block in blocks[: len(results)] if block["type"] == "tool_result"]
    if missing := [call for call in owed if call not in leading]:
        raise _unanswered(index - 1, missing)
    calls = [block["id"] for block in blocks if block["type"] == "tool_use"] if role == "assistant" else []
    _want(len(set(calls)) == len(calls), path, "`tool_use` ids must be unique")
    return calls


def _validate_last(body: dict[str, Any], last: dict[str, Any], model: tuple[int, int] | None) -> None:
    if last["role"] != "assistant":
        return
    if model is not None and model >= (4, 6):
        raise Refusal(
            "This model does not support assistant message prefill. The conversation must end with a user message."
        )
    if (body.get("thinking") or {}).get("type") in ("enabled", "adaptive"):
        raise Refusal("When thinking is enabled, the conversation must end with a user message: no prefill.")
    text = last["content"] if isinstance(last["content"], str) else last["content"][-1].get("text", "")
    if text != text.rstrip():
        raise Refusal("messages: final assistant content cannot end with trailing whitespace")


def _validate_thinking_turn(body: dict[str, Any], messages: list[Any]) -> None:
    """With thinking enabled, the assistant turn that is still at work on tools must begin with its thinking."""
    if (body.get("thinking") or {}).get("type") != "enabled":
        return
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        blocks = message["content"] if isinstance(message["content"], list) else [{"type": "text"}]
        if message["role"] == "assistant":
            if any(block["type"] == "tool_use" for block in blocks) and not blocks[0]["type"].endswith("thinking"):
                raise Refusal(
                    f"messages.{index}.content.0.type: Expected `thinking` or `redacted_thinking`, but found "
                    f"`{blocks[0]['type']}`. When `thinking` is enabled, a final `assistant` message must start with a "
                    "thinking block (preceeding the lastmost set of `tool_use` and `tool_result` blocks)."
                )
        elif not any(block["type"] == "tool_result" for block in blocks):
            return
