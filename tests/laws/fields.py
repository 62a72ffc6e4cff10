"""The fields of both formats, with an example of each and where it stands in the other: what docs/formats.md lists."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from .common import ANTHROPIC, OPENAI

PNG: Final = "iVBORw0KGgo="


class Row(NamedTuple):
    """A field, an example of it as members of a body, and where it stands on the other side (nowhere: it is lost).

    Lists of the example are added to those of the body. ``to`` is a path in the translated body; ``[]`` is any element.
    """

    field: str
    example: dict[str, Any]
    to: str = ""


def says(role: str, *content: Any, **more: Any) -> dict[str, Any]:
    """A request's messages: one of ``role``."""
    return {"messages": [{"role": role, "content": content[0] if len(content) == 1 else list(content), **more}]}


def user(*blocks: Any) -> dict[str, Any]:
    """A request's messages: blocks of a user."""
    return {"messages": [{"role": "user", "content": list(blocks)}]}


def assistant(*blocks: Any) -> dict[str, Any]:
    """A request's messages: blocks of an assistant."""
    return {"messages": [{"role": "assistant", "content": list(blocks)}]}


SCHEMA: Final = {"type": "object", "properties": {}}
LOOK: Final = {"type": "function", "function": {"name": "look", "parameters": SCHEMA}}
NAMED: Final = {"type": "function", "function": {"name": "look"}}
CALLED: Final = {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": '{"at":1}'}}
USED: Final = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"at": 1}}
IMAGE: Final = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG}}
MARK: Final = {"type": "ephemeral", "ttl": "1h"}
CITATION: Final = {
    "type": "web_search_result_location",
    "url": "https://a.example/",
    "title": "A",
    "cited_text": "c",
    "encrypted_index": "E",
}


def file(**file: Any) -> dict[str, Any]:
    return user({"type": "file", "file": file})


def image(url: str, **more: Any) -> dict[str, Any]:
    return user({"type": "image_url", "image_url": {"url": url, **more}})


REQUESTS: Final[dict[str, tuple[Row, ...]]] = {
    OPENAI: (
        Row("messages[] system, developer, first", says("system", "Be brief."), "system"),
        Row(
            "messages[] system, developer, later",
            {"later": says("developer", "Be kind.")},
            "messages[].content[].text",
        ),
        Row("messages[] user, assistant: text", says("user", "words"), "messages[].content[].text"),
        Row("messages[].name", says("user", "words", name="ann")),
        Row(
            "content[] image_url, data: URL", image(f"data:image/png;base64,{PNG}"), "messages[].content[].source.data"
        ),
        Row("content[] image_url, address", image("https://a.example/p.png"), "messages[].content[].source.url"),
        Row("content[].image_url.detail", image("https://a.example/p.png", detail="low")),
        Row(
            "content[] file, file_data, PDF",
            file(file_data="data:application/pdf;base64,JVBERi0=", filename="a.pdf"),
            "messages[].content[].source.data",
        ),
        Row(
            "content[].file.filename",
            file(file_data="data:application/pdf;base64,JVBERi0=", filename="a.pdf"),
            "messages[].content[].title",
        ),
        Row("content[] file, file_id", user({"type": "text", "text": "x"}, {"type": "file", "file": {"file_id": "f"}})),
        Row(
            "content[] input_audio",
            user(
                {"type": "text", "text": "x"}, {"type": "input_audio", "input_audio": {"data": "UklG", "format": "wav"}}
            ),
        ),
        Row(
            "content[].cache_control",
            user({"type": "text", "text": "x", "cache_control": MARK}),
            "messages[].content[].cache_control",
        ),
        Row(
            "content[].prompt_cache_breakpoint",
            user({"type": "text", "text": "x", "prompt_cache_breakpoint": {"mode": "explicit"}}),
            "messages[].content[].cache_control",
        ),
        Row("messages[].refusal", says("assistant", None, refusal="No."), "messages[].content[].text"),
        Row("messages[].reasoning_content", says("assistant", "x", reasoning_content="hm")),
        Row("messages[].audio", says("assistant", "x", audio={"id": "audio_1"})),
        Row("messages[].tool_calls[]", says("assistant", None, tool_calls=[CALLED]), "messages[].content[].input"),
        Row(
            "messages[].tool_calls[], empty arguments",
            says("assistant", None, tool_calls=[{**CALLED, "function": {"name": "look", "arguments": ""}}]),
            "messages[].content[].input",
        ),
        Row(
            "messages[].tool_calls[].id, with other signs",
            says("assistant", None, tool_calls=[{**CALLED, "id": "call:1/2"}]),
            "messages[].content[].id",
        ),
        Row(
            "messages[].tool_calls[] custom",
            says(
                "assistant", None, tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "run", "input": "x"}}]
            ),
            "messages[].content[].input.input",
        ),
        Row(
            "messages[].function_call",
            says("assistant", None, function_call={"name": "look", "arguments": "{}"}),
            "messages[].content[].name",
        ),
        Row(
            "messages[] tool",
            {"messages": [{"role": "tool", "tool_call_id": "call_1", "content": "warm"}]},
            "messages[].content[].tool_use_id",
        ),
        Row(
            "messages[] tool: name",
            {"messages": [{"role": "tool", "tool_call_id": "call_1", "name": "look", "content": "warm"}]},
        ),
        Row(
            "messages[] function",
            {"messages": [{"role": "function", "name": "look", "content": "warm"}]},
            "messages[].content[].tool_use_id",
        ),
        Row("tools[] function", {"tools": [LOOK]}, "tools[].input_schema"),
        Row(
            "tools[] function without parameters",
            {"tools": [{"type": "function", "function": {"name": "look"}}]},
            "tools[].input_schema",
        ),
        Row(
            "tools[].function.strict",
            {"tools": [{"type": "function", "function": {"name": "l", "parameters": SCHEMA, "strict": True}}]},
            "tools[].strict",
        ),
        Row("tools[] custom", {"tools": [{"type": "custom", "custom": {"name": "run"}}]}),
        Row("functions[]", {"functions": [{"name": "look", "parameters": SCHEMA}]}, "tools[].name"),
        Row("tool_choice", {"tools": [LOOK], "tool_choice": "required"}, "tool_choice.type"),
        Row(
            "tool_choice, allowed_tools",
            {
                "tools": [LOOK],
                "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [NAMED]}},
            },
            "tools[].name",
        ),
        Row(
            "parallel_tool_calls: false",
            {"tools": [LOOK], "parallel_tool_calls": False},
            "tool_choice.disable_parallel_tool_use",
        ),
        Row("max_completion_tokens, max_tokens", {"max_completion_tokens": 7}, "max_tokens"),
        Row("temperature", {"temperature": 0.5}, "temperature"),
        Row("top_p", {"top_p": 0.5}, "top_p"),
        Row("stop", {"stop": ["END"]}, "stop_sequences"),
        Row("stop of blanks", {"stop": ["\n"]}),
        Row("response_format json_object", {"response_format": {"type": "json_object"}}),
        Row(
            "response_format json_schema",
            {"response_format": {"type": "json_schema", "json_schema": {"name": "r", "schema": SCHEMA}}},
            "output_config.format.schema",
        ),
        Row("reasoning_effort", {"reasoning_effort": "high"}, "output_config.effort"),
        Row("reasoning_effort: minimal", {"reasoning_effort": "minimal"}, "output_config.effort"),
        Row("reasoning_effort: none", {"reasoning_effort": "none"}, "thinking.type"),
        Row("user, safety_identifier", {"user": "u-1"}, "metadata.user_id"),
        Row("service_tier: auto, default", {"service_tier": "default"}, "service_tier"),
        Row("service_tier, others", {"service_tier": "flex"}),
        Row("stream", {"stream": True}, "stream"),
        *(
            Row(name, {name: value})
            for name, value in (
                ("audio", {"format": "wav", "voice": "alloy"}),
                ("frequency_penalty", 0.5),
                ("logit_bias", {"1": 1}),
                ("logprobs", True),
                ("metadata", {"a": "b"}),
                ("modalities", ["text", "audio"]),
                ("moderation", {"model": "omni"}),
                ("n", 2),
                ("prediction", {"type": "content", "content": "x"}),
                ("presence_penalty", 0.5),
                ("prompt_cache_key", "k"),
                ("prompt_cache_options", {"mode": "implicit"}),
                ("prompt_cache_retention", "24h"),
                ("seed", 1),
                ("store", True),
                ("top_logprobs", 3),
                ("verbosity", "low"),
                ("web_search_options", {}),
            )
        ),
        Row("stream_options.include_obfuscation", {"stream_options": {"include_obfuscation": True}}),
    ),
    ANTHROPIC: (
        Row("system", {"system": "Be brief."}, "messages[].content"),
        Row("messages[] system", {"later": says("system", "Be kind.")}, "messages[].content"),
        Row("content[] text", says("user", "words"), "messages[].content"),
        Row("content[].text.citations", assistant({"type": "text", "text": "x", "citations": [CITATION]})),
        Row("content[].cache_control", user({"type": "text", "text": "x", "cache_control": MARK})),
        Row("content[] image, base64", user(IMAGE), "messages[].content[].image_url.url"),
        Row(
            "content[] image, url",
            user({"type": "image", "source": {"type": "url", "url": "https://a.example/p.png"}}),
            "messages[].content[].image_url.url",
        ),
        Row("content[] image, file", user({"type": "image", "source": {"type": "file", "file_id": "f"}})),
        Row(
            "content[] document, base64",
            user(
                {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}
            ),
            "messages[].content[].file.file_data",
        ),
        Row(
            "content[] document, text",
            user({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}}),
            "messages[].content",
        ),
        Row(
            "content[] document, url",
            user({"type": "document", "source": {"type": "url", "url": "https://a.example/a.pdf"}}),
        ),
        Row(
            "content[] thinking",
            assistant({"type": "thinking", "thinking": "hm", "signature": "S"}, {"type": "text", "text": "x"}),
        ),
        Row(
            "content[] redacted_thinking",
            assistant({"type": "redacted_thinking", "data": "D"}, {"type": "text", "text": "x"}),
        ),
        Row("content[] tool_use", assistant(USED), "messages[].tool_calls[].function.arguments"),
        Row(
            "content[] tool_result",
            user({"type": "tool_result", "tool_use_id": "toolu_1", "content": "warm"}),
            "messages[].tool_call_id",
        ),
        Row(
            "content[].tool_result.is_error",
            user({"type": "tool_result", "tool_use_id": "toolu_1", "content": "cold", "is_error": True}),
        ),
        Row(
            "content[] tool_result with an image",
            user({"type": "tool_result", "tool_use_id": "toolu_1", "content": [IMAGE]}),
            "messages[].content[].image_url.url",
        ),
        Row(
            "content[] server_tool_use and other blocks",
            assistant(
                {"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, {"type": "text", "text": "x"}
            ),
        ),
        Row("tools[]", {"tools": [{"name": "look", "input_schema": SCHEMA}]}, "tools[].function.parameters"),
        Row(
            "tools[].strict",
            {"tools": [{"name": "look", "input_schema": SCHEMA, "strict": True}]},
            "tools[].function.strict",
        ),
        Row("tools[].cache_control", {"tools": [{"name": "look", "input_schema": SCHEMA, "cache_control": MARK}]}),
        Row("tools[] of the provider's own", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        Row(
            "tool_choice",
            {"tools": [{"name": "look", "input_schema": SCHEMA}], "tool_choice": {"type": "any"}},
            "tool_choice",
        ),
        Row(
            "tool_choice.disable_parallel_tool_use",
            {
                "tools": [{"name": "look", "input_schema": SCHEMA}],
                "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
            },
            "parallel_tool_calls",
        ),
        Row("max_tokens", {"max_tokens": 7}, "max_completion_tokens"),
        Row("temperature", {"temperature": 0.5}, "temperature"),
        Row("top_p", {"top_p": 0.5}, "top_p"),
        Row("top_k", {"top_k": 5}),
        Row("stop_sequences", {"stop_sequences": ["END"]}, "stop"),
        Row("stop_sequences, more than four", {"stop_sequences": list("abcde")}, "stop"),
        Row("metadata.user_id", {"metadata": {"user_id": "u-1"}}, "user"),
        Row(
            "output_config.format",
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            "response_format.json_schema.schema",
        ),
        Row("output_config.effort", {"output_config": {"effort": "high"}}, "reasoning_effort"),
        Row("thinking enabled", {"thinking": {"type": "enabled", "budget_tokens": 2000}}, "reasoning_effort"),
        Row("thinking adaptive", {"thinking": {"type": "adaptive"}}),
        Row("thinking disabled", {"thinking": {"type": "disabled"}}),
        Row("service_tier", {"service_tier": "standard_only"}, "service_tier"),
        Row("stream", {"stream": True}, "stream_options.include_usage"),
        Row("cache_control", {"cache_control": MARK}),
        *(
            Row(name, {name: value})
            for name, value in (
                ("container", "c"),
                ("diagnostics", {"previous_message_id": "m"}),
                ("inference_geo", "eu"),
                ("speed", "fast"),
                ("user_profile_id", "p"),
                ("workspace_id", "w"),
            )
        ),
    ),
}


def message(**more: Any) -> dict[str, Any]:
    """A whole answer of OpenAI's, its message with ``more``."""
    return {
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "x", **more}, "finish_reason": "stop"}]
    }


def content(*blocks: Any, **more: Any) -> dict[str, Any]:
    """A whole answer of Anthropic's with these blocks."""
    return {"content": list(blocks), **more}


TEXT: Final = {"type": "text", "text": "x"}
NOTE: Final = {
    "type": "url_citation",
    "url_citation": {"url": "https://a.example/", "title": "A", "start_index": 0, "end_index": 1},
}


def stops(word: str, **more: Any) -> dict[str, Any]:
    """A whole answer of OpenAI's that ends with ``word``."""
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": "x", **more}, "finish_reason": word}]}


ANSWERS: Final[dict[str, tuple[Row, ...]]] = {
    OPENAI: (
        Row("id", {}, "id"),
        Row("created", {}, "-"),
        Row("model", {}, "model"),
        Row("system_fingerprint", {"system_fingerprint": "fp"}),
        Row("service_tier", {"service_tier": "default"}),
        Row("choices[], more than one", {"choices": [*message()["choices"], {**message()["choices"][0], "index": 1}]}),
        Row("message.content", message(), "content[].text"),
        Row("message.refusal", message(content=None, refusal="No."), "content[].text"),
        Row("message.reasoning_content, reasoning", message(reasoning_content="hm"), "content[].thinking"),
        Row("message.tool_calls[]", stops("tool_calls", tool_calls=[CALLED]), "content[].input"),
        Row(
            "message.tool_calls[] custom",
            stops("tool_calls", tool_calls=[{"id": "c", "type": "custom", "custom": {"name": "run", "input": "x"}}]),
            "content[].input.input",
        ),
        Row("message.annotations[]", message(annotations=[NOTE])),
        Row("message.audio", message(audio={"id": "a", "data": "UklG", "transcript": "x", "expires_at": 1})),
        Row(
            "choices[].logprobs",
            {"choices": [{**message()["choices"][0], "logprobs": {"content": [{"token": "x", "logprob": -1.0}]}}]},
        ),
        Row("finish_reason stop", stops("stop"), "stop_reason"),
        Row("finish_reason length", stops("length"), "stop_reason"),
        Row("finish_reason tool_calls", stops("tool_calls", tool_calls=[CALLED]), "stop_reason"),
        Row("finish_reason stop after a call", stops("stop", tool_calls=[CALLED]), "stop_reason"),
        Row("finish_reason content_filter", stops("content_filter"), "stop_reason"),
        Row("usage", {"usage": {"prompt_tokens": 5, "completion_tokens": 3}}, "usage.input_tokens"),
        Row(
            "usage.prompt_tokens_details.cached_tokens",
            {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}},
            "usage.cache_read_input_tokens",
        ),
        Row(
            "usage.completion_tokens_details.reasoning_tokens",
            {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            "usage.output_tokens_details.thinking_tokens",
        ),
        Row("no usage", {"usage": None}, "usage.input_tokens"),
        Row("usage without completion_tokens", {"usage": {"prompt_tokens": 5}}, "usage.output_tokens"),
    ),
    ANTHROPIC: (
        Row("id", {}, "id"),
        Row("no date", {}, "created"),
        Row("model", {}, "model"),
        Row("content[] text", content(TEXT), "choices[].message.content"),
        Row(
            "content[].text.citations[], of an address",
            content({**TEXT, "citations": [CITATION]}),
            "choices[].message.annotations[].url_citation.url",
        ),
        Row(
            "content[].text.citations[], of a document",
            content({**TEXT, "citations": [{"type": "char_location", "cited_text": "c", "document_index": 0}]}),
        ),
        Row(
            "content[] thinking",
            content({"type": "thinking", "thinking": "hm", "signature": ""}, TEXT),
            "choices[].message.reasoning_content",
        ),
        Row("content[].thinking.signature", content({"type": "thinking", "thinking": "hm", "signature": "S"}, TEXT)),
        Row("content[] redacted_thinking", content({"type": "redacted_thinking", "data": "D"}, TEXT)),
        Row(
            "content[] tool_use",
            content(USED, stop_reason="tool_use"),
            "choices[].message.tool_calls[].function.arguments",
        ),
        Row(
            "content[] server_tool_use and other blocks",
            content({"type": "server_tool_use", "id": "s", "name": "web_search", "input": {}}, TEXT),
        ),
        Row("stop_reason end_turn", {"stop_reason": "end_turn"}, "choices[].finish_reason"),
        Row("stop_reason max_tokens", {"stop_reason": "max_tokens"}, "choices[].finish_reason"),
        Row("stop_reason tool_use", content(USED, stop_reason="tool_use"), "choices[].finish_reason"),
        Row(
            "stop_reason stop_sequence",
            {"stop_reason": "stop_sequence", "stop_sequence": "END"},
            "choices[].finish_reason",
        ),
        Row("stop_reason refusal", {"stop_reason": "refusal"}, "choices[].finish_reason"),
        Row("stop_reason pause_turn", {"stop_reason": "pause_turn"}, "choices[].finish_reason"),
        Row(
            "stop_reason model_context_window_exceeded",
            {"stop_reason": "model_context_window_exceeded"},
            "choices[].finish_reason",
        ),
        Row("usage", {"usage": {"input_tokens": 5, "output_tokens": 3}}, "usage.prompt_tokens"),
        Row(
            "usage.cache_read_input_tokens",
            {"usage": {"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 2}},
            "usage.prompt_tokens_details.cached_tokens",
        ),
        Row(
            "usage.cache_creation_input_tokens",
            {"usage": {"input_tokens": 5, "output_tokens": 3, "cache_creation_input_tokens": 2}},
            "usage.prompt_tokens_details.cache_write_tokens",
        ),
        Row("container", {"container": {"id": "c", "expires_at": "2026-01-01T00:00:00Z"}}),
    ),
}
