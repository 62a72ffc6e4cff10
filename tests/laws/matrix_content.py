"""What is said in a request, and with which tools: a table of features, each in the words of the formats that have some."""

from __future__ import annotations

from typing import Final

from headgate.gateway.ir.message import Refusal, Text

from .common import ANTHROPIC, GENERATE, OLLAMA, OPENAI, RESPONSES
from .gemini_format import GEMINI
from .matrix_spelling import (
    ALL,
    ASK,
    BLOCK_TOOLS,
    CHAT_TOOLS,
    DECLARED,
    FLAT_TOOLS,
    LINK,
    PDF,
    PIXEL_URL,
    PNG,
    SCHEMA,
    TWO_CALLS,
    TWO_CHAT,
    TWO_DECLARED,
    TWO_FLAT,
    WAV,
    Body,
    Feature,
    aliens,
    barred,
    block,
    block_results,
    built_in,
    calling,
    calls,
    chat,
    chat_results,
    choice,
    conversation,
    every,
    flat,
    free,
    function,
    given,
    instructions,
    item_results,
    items,
    line_results,
    media,
    member,
    modelled,
    own,
    part_results,
    parts,
    plain_documents,
    replied,
    results,
    setting,
    tools,
    tools_of,
    turns,
    user,
)


def _file(data: str, type: str) -> Body:
    return {"inlineData": {"mimeType": type, "data": data}}


def _source(kind: str, data: str, type: str) -> Body:
    return {"type": kind, "source": {"type": "base64", "media_type": type, "data": data}}


def _linked(kind: str, url: str) -> Body:
    return {"type": kind, "source": {"type": "url", "url": url}}


SYSTEM: Final[dict[str, Body]] = {
    OPENAI: chat({"role": "system", "content": "Be brief."}, ASK),
    RESPONSES: {"instructions": "Be brief."},
    ANTHROPIC: {"system": "Be brief."},
    GEMINI: {"systemInstruction": {"parts": [{"text": "Be brief."}]}},
    OLLAMA: chat({"role": "system", "content": "Be brief."}, ASK),
    GENERATE: {"system": "Be brief."},
}
HELLO: Final = {"role": "assistant", "content": "hello"}
KIND: Final = {"role": "user", "content": "go on"}
SAID: Final = [("user", "hi"), ("assistant", "hello"), ("user", "go on")]
SPOKEN: Final = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "hello", "annotations": []}],
}

WORDS: Final = (
    Feature(
        "text",
        conversation,
        [("user", "hi")],
        {format: {} for format in ALL},
    ),
    Feature("instructions", instructions, ["Be brief."], SYSTEM),
    Feature(
        "instructions in the middle",
        instructions,
        ["Be kind."],
        {
            OPENAI: chat(ASK, HELLO, {"role": "developer", "content": "Be kind."}, KIND),
            RESPONSES: items(ASK, SPOKEN, {"role": "developer", "content": "Be kind."}, KIND),
            ANTHROPIC: chat(ASK, HELLO, KIND, {"role": "system", "content": "Be kind."}),
            OLLAMA: chat(ASK, HELLO, {"role": "system", "content": "Be kind."}, KIND),
        },
    ),
    Feature(
        "several turns",
        conversation,
        SAID,
        {
            OPENAI: chat(ASK, HELLO, KIND),
            RESPONSES: turns(SPOKEN),
            ANTHROPIC: chat(ASK, HELLO, KIND),
            GEMINI: modelled({"text": "hello"}),
            OLLAMA: chat(ASK, HELLO, KIND),
        },
    ),
    Feature(
        "name of a speaker",
        lambda request: [it.name for it in request.messages],
        ["ann"],
        {
            OPENAI: chat({**ASK, "name": "ann"}),
        },
    ),
    Feature(
        "refusal of an earlier turn",
        lambda request: [it.text for it in every(request) if isinstance(it, Refusal)],
        ["No."],
        {
            OPENAI: replied(content=None, refusal="No."),
            RESPONSES: turns({**SPOKEN, "content": [{"type": "refusal", "refusal": "No."}]}),
        },
    ),
    Feature(
        "citation of an earlier turn",
        lambda request: [c.url for it in every(request) if isinstance(it, Text) for c in it.citations],
        ["https://a.example/"],
        {
            RESPONSES: turns(
                {
                    **SPOKEN,
                    "content": [
                        {
                            "type": "output_text",
                            "text": "hello",
                            "annotations": [
                                {
                                    "type": "url_citation",
                                    "url": "https://a.example/",
                                    "title": "A",
                                    "start_index": 0,
                                    "end_index": 5,
                                }
                            ],
                        }
                    ],
                }
            ),
            ANTHROPIC: replied(
                {
                    "type": "text",
                    "text": "hello",
                    "citations": [
                        {
                            "type": "web_search_result_location",
                            "url": "https://a.example/",
                            "title": "A",
                            "cited_text": "c",
                            "encrypted_index": "E",
                        }
                    ],
                }
            ),
        },
    ),
)

MEDIA: Final = (
    Feature(
        "image by its data",
        media("kind", "media_type", "data"),
        [("image", "image/png", PNG)],
        {
            OPENAI: user({"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": PIXEL_URL}}),
            RESPONSES: given(
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": PIXEL_URL, "detail": "auto"},
            ),
            ANTHROPIC: user({"type": "text", "text": "hi"}, _source("image", PNG, "image/png")),
            GEMINI: parts({"text": "hi"}, _file(PNG, "image/png")),
            OLLAMA: chat({**ASK, "images": [PNG]}),
            GENERATE: {"images": [PNG]},
        },
    ),
    Feature(
        "image by its address",
        media("kind", "uri"),
        [("image", LINK)],
        {
            OPENAI: user({"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": LINK}}),
            RESPONSES: given(
                {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": LINK, "detail": "auto"}
            ),
            ANTHROPIC: user({"type": "text", "text": "hi"}, _linked("image", LINK)),
            GEMINI: parts({"text": "hi"}, {"fileData": {"mimeType": "image/png", "fileUri": LINK}}),
        },
    ),
    Feature(
        "image alone",
        media("kind", "media_type", "data"),
        [("image", "image/png", PNG)],
        {
            OPENAI: user({"type": "image_url", "image_url": {"url": PIXEL_URL}}),
            RESPONSES: given({"type": "input_image", "image_url": PIXEL_URL, "detail": "auto"}),
            ANTHROPIC: user(_source("image", PNG, "image/png")),
            GEMINI: parts(_file(PNG, "image/png")),
            OLLAMA: chat({"role": "user", "content": "", "images": [PNG]}),
        },
    ),
    Feature(
        "detail of an image",
        media("detail"),
        [("low",)],
        {
            OPENAI: user(
                {"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": LINK, "detail": "low"}}
            ),
            RESPONSES: given(
                {"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": LINK, "detail": "low"}
            ),
        },
    ),
    Feature(
        "document by its data",
        media("kind", "media_type", "data"),
        [("document", "application/pdf", PDF)],
        {
            OPENAI: user(
                {"type": "text", "text": "hi"},
                {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"}},
            ),
            RESPONSES: given(
                {"type": "input_text", "text": "hi"},
                {"type": "input_file", "file_data": f"data:application/pdf;base64,{PDF}", "filename": "a.pdf"},
            ),
            ANTHROPIC: user({"type": "text", "text": "hi"}, _source("document", PDF, "application/pdf")),
            GEMINI: parts({"text": "hi"}, _file(PDF, "application/pdf")),
        },
    ),
    Feature(
        "document by its address",
        media("kind", "uri"),
        [("document", "https://a.example/a.pdf")],
        {
            RESPONSES: given(
                {"type": "input_text", "text": "hi"}, {"type": "input_file", "file_url": "https://a.example/a.pdf"}
            ),
            ANTHROPIC: user({"type": "text", "text": "hi"}, _linked("document", "https://a.example/a.pdf")),
            GEMINI: parts(
                {"text": "hi"}, {"fileData": {"mimeType": "application/pdf", "fileUri": "https://a.example/a.pdf"}}
            ),
        },
    ),
    Feature(
        "document of plain text",
        plain_documents,
        ["long ago"],
        {
            ANTHROPIC: user(
                {"type": "text", "text": "hi"},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "long ago"}},
            ),
        },
    ),
    Feature(
        "search result",
        plain_documents,
        ["Then\nhttps://a.example/\nlong ago"],
        {
            ANTHROPIC: user(
                {"type": "text", "text": "hi"},
                {
                    "type": "search_result",
                    "source": "https://a.example/",
                    "title": "Then",
                    "content": [{"type": "text", "text": "long ago"}],
                },
            ),
        },
    ),
    Feature(
        "file of a provider",
        media("file_id"),
        [("file_1",)],
        {
            OPENAI: user({"type": "text", "text": "hi"}, {"type": "file", "file": {"file_id": "file_1"}}),
            RESPONSES: given({"type": "input_text", "text": "hi"}, {"type": "input_file", "file_id": "file_1"}),
            ANTHROPIC: user(
                {"type": "text", "text": "hi"}, {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
            ),
        },
    ),
    Feature(
        "audio",
        media("kind", "media_type", "data"),
        [("audio", "audio/wav", WAV)],
        {
            OPENAI: user(
                {"type": "text", "text": "hi"}, {"type": "input_audio", "input_audio": {"data": WAV, "format": "wav"}}
            ),
            GEMINI: parts({"text": "hi"}, _file(WAV, "audio/wav")),
        },
    ),
    Feature(
        "video",
        media("kind", "media_type", "data"),
        [("video", "video/mp4", "AAAA")],
        {GEMINI: parts({"text": "hi"}, _file("AAAA", "video/mp4"))},
    ),
    Feature(
        "citations of a document wanted",
        member("citations"),
        [{"enabled": True}],
        {
            ANTHROPIC: user(
                {"type": "text", "text": "hi"},
                {**_source("document", PDF, "application/pdf"), "citations": {"enabled": True}},
            )
        },
    ),
)

TOOLS: Final = (
    Feature(
        "tools",
        tools,
        [("look", "Looks.", SCHEMA)],
        {OPENAI: CHAT_TOOLS, RESPONSES: FLAT_TOOLS, ANTHROPIC: BLOCK_TOOLS, GEMINI: DECLARED, OLLAMA: CHAT_TOOLS},
    ),
    Feature(
        "tool with an OpenAPI schema",
        tools,
        [("look", "Looks.", {"type": "object", "properties": {"at": {"type": "integer"}}})],
        {
            GEMINI: {
                "tools": [
                    {
                        "functionDeclarations": [
                            {
                                "name": "look",
                                "description": "Looks.",
                                "parameters": {"type": "OBJECT", "properties": {"at": {"type": "INTEGER"}}},
                            }
                        ]
                    }
                ]
            }
        },
    ),
    Feature(
        "strict tool",
        lambda request: [it.strict for it in request.tools],
        [True],
        {
            OPENAI: {"tools": [function(strict=True)]},
            RESPONSES: {"tools": [flat(strict=True)]},
            ANTHROPIC: {"tools": [block(strict=True)]},
        },
    ),
    Feature(
        "parallel calls of an earlier turn",
        calls,
        (TWO_CALLS, [0, 1]),
        {
            OPENAI: chat_results("warm", "cold"),
            RESPONSES: item_results("warm", "cold"),
            ANTHROPIC: block_results("warm", "cold"),
            GEMINI: part_results({"response": {"output": "warm"}}, {"response": {"output": "cold"}}),
            OLLAMA: line_results({"content": "warm"}, {"content": "cold"}),
        },
        beside=("tools",),
    ),
    Feature(
        "result: text",
        results,
        [(["warm"], False)],
        {
            OPENAI: chat_results("warm"),
            RESPONSES: item_results("warm"),
            ANTHROPIC: block_results("warm"),
            GEMINI: part_results({"response": {"output": "warm"}}),
            OLLAMA: line_results({"content": "warm"}),
        },
        beside=("tools",),
    ),
    Feature(
        "result: image",
        results,
        [([PNG, "warm"], False)],
        {
            RESPONSES: item_results(
                [{"type": "input_text", "text": "warm"}, {"type": "input_image", "image_url": PIXEL_URL}]
            ),
            ANTHROPIC: block_results([{"type": "text", "text": "warm"}, _source("image", PNG, "image/png")]),
            GEMINI: part_results({"response": {"output": "warm"}, "parts": [_file(PNG, "image/png")]}),
            OLLAMA: line_results({"content": "warm", "images": [PNG]}),
        },
        beside=("tools",),
    ),
    Feature(
        "result: error",
        results,
        [(["broke"], True)],
        {
            ANTHROPIC: block_results("broke", is_error=True),
            GEMINI: part_results({"response": {"error": "broke"}}),
        },
        beside=("tools",),
    ),
    Feature(
        "choice: auto",
        free,
        True,
        {
            OPENAI: {**CHAT_TOOLS, "tool_choice": "auto"},
            RESPONSES: {**FLAT_TOOLS, "tool_choice": "auto"},
            ANTHROPIC: {**BLOCK_TOOLS, "tool_choice": {"type": "auto"}},
            GEMINI: {**DECLARED, **calling(mode="AUTO")},
        },
        beside=("tools",),
    ),
    Feature(
        "choice: any tool",
        choice,
        ("required", (), False),
        {
            OPENAI: {**CHAT_TOOLS, "tool_choice": "required"},
            RESPONSES: {**FLAT_TOOLS, "tool_choice": "required"},
            ANTHROPIC: {**BLOCK_TOOLS, "tool_choice": {"type": "any"}},
            GEMINI: {**DECLARED, **calling(mode="ANY")},
        },
        beside=("tools",),
    ),
    Feature(
        "choice: this tool",
        choice,
        ("tool", ("look",), False),
        {
            OPENAI: {**CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}},
            RESPONSES: {**FLAT_TOOLS, "tool_choice": {"type": "function", "name": "look"}},
            ANTHROPIC: {**BLOCK_TOOLS, "tool_choice": {"type": "tool", "name": "look"}},
            GEMINI: {**DECLARED, **calling(mode="ANY", allowedFunctionNames=["look"])},
        },
        beside=("tools",),
    ),
    Feature(
        "choice: none",
        barred,
        True,
        {
            OPENAI: {**CHAT_TOOLS, "tool_choice": "none"},
            RESPONSES: {**FLAT_TOOLS, "tool_choice": "none"},
            ANTHROPIC: {**BLOCK_TOOLS, "tool_choice": {"type": "none"}},
            GEMINI: {**DECLARED, **calling(mode="NONE")},
        },
        beside=("tools",),
    ),
    Feature(
        "choice: some of the tools",
        choice,
        ("allowed", ("look", "hear"), True),
        {
            OPENAI: {
                **TWO_CHAT,
                "tool_choice": {
                    "type": "allowed_tools",
                    "allowed_tools": {
                        "mode": "required",
                        "tools": [{"type": "function", "function": {"name": it}} for it in ("look", "hear")],
                    },
                },
            },
            RESPONSES: {
                **TWO_FLAT,
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "required",
                    "tools": [{"type": "function", "name": it} for it in ("look", "hear")],
                },
            },
            GEMINI: {**TWO_DECLARED, **calling(mode="ANY", allowedFunctionNames=["look", "hear"])},
        },
    ),
    Feature(
        "no parallel calls",
        setting("parallel_tool_calls"),
        False,
        {
            OPENAI: {**CHAT_TOOLS, "parallel_tool_calls": False},
            RESPONSES: {**FLAT_TOOLS, "parallel_tool_calls": False},
            ANTHROPIC: {**BLOCK_TOOLS, "tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        },
        beside=("tools",),
    ),
    Feature(
        "custom tool",
        tools_of("custom"),
        ["run"],
        {
            OPENAI: {"tools": [{"type": "custom", "custom": {"name": "run", "description": "Runs."}}]},
            RESPONSES: {"tools": [{"type": "custom", "name": "run", "description": "Runs."}]},
        },
    ),
    Feature(
        "custom call of an earlier turn",
        calls,
        ([("run", "ls -l")], [0]),
        {
            OPENAI: chat(
                ASK,
                {
                    "role": "assistant",
                    "content": None,
                    "tool_calls": [{"id": "call_0", "type": "custom", "custom": {"name": "run", "input": "ls -l"}}],
                },
                {"role": "tool", "tool_call_id": "call_0", "content": "warm"},
            ),
            RESPONSES: items(
                ASK,
                {"type": "custom_tool_call", "call_id": "call_0", "name": "run", "input": "ls -l"},
                {"type": "custom_tool_call_output", "call_id": "call_0", "output": "warm"},
            ),
        },
        beside=("tools",),
    ),
    Feature(
        "built-in tool",
        built_in,
        ["web_search"],
        {
            RESPONSES: {"tools": [{"type": "web_search"}]},
            ANTHROPIC: {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            GEMINI: {"tools": [{"googleSearch": {}}]},
        },
        {ANTHROPIC: ["web_search_20250305"], GEMINI: ["googleSearch"]},
    ),
    Feature(
        "web search of the model",
        own("web_search_options"),
        {"web_search_options": {"search_context_size": "low"}},
        {OPENAI: {"web_search_options": {"search_context_size": "low"}}},
    ),
    Feature(
        "work of a built-in tool, earlier",
        aliens,
        ["web_search_call"],
        {
            RESPONSES: turns({"type": "web_search_call", "id": "ws_1", "status": "completed"}, SPOKEN),
            ANTHROPIC: replied(
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "text", "text": "hello"},
            ),
            GEMINI: modelled(
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                {"text": "hello"},
            ),
        },
        {
            ANTHROPIC: ["web_search_tool_result", "server_tool_use"],
            GEMINI: ["executableCode", "codeExecutionResult"],
        },
    ),
    Feature(
        "MCP server",
        own("mcp_servers"),
        {"mcp_servers": [{"type": "url", "name": "s", "url": "https://a.example/"}]},
        {ANTHROPIC: {"mcp_servers": [{"type": "url", "name": "s", "url": "https://a.example/"}]}},
    ),
)

CONTENT: Final = (*WORDS, *MEDIA, *TOOLS)
