"""What an answer can say, in the words of every format that has words for it: whole, and by matrix_streams as a stream."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from headgate.gateway.ir.fold import Response
from headgate.gateway.ir.message import Media, Opaque, Part, Reasoning, Refusal, Text, ToolCall

from .common import ANTHROPIC, COMPLETIONS, GENERATE, OLLAMA, OPENAI, RESPONSES
from .gemini_format import GEMINI
from .matrix_spelling import PNG, SIGN, WAV, Body

DATE: Final = 1_700_000_001
GONE: Final = object()
"""In the place of a member that an answer does not have."""


class Answer(NamedTuple):
    """Something to say in an answer. ``odd`` is what some formats mean by it in other words."""

    name: str
    read: Callable[[Response], object]
    said: object
    bodies: Mapping[str, Body]
    odd: Mapping[str, object] = {}

    def expected(self, format: str) -> object:
        """What an answer of ``format`` that says this must be read as."""
        return self.odd.get(format, self.said)


_COUNTS: Final = {"input_tokens": 5, "output_tokens": 3, "total_tokens": 8}
_DETAILS: Final = {
    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
    "output_tokens_details": {"reasoning_tokens": 0},
}


def _output_text(**more: Any) -> Body:
    return {"type": "output_text", "text": "warm", "annotations": [], "logprobs": [], **more}


def spoken(*parts: Body) -> Body:
    """Responses' item of a message."""
    content = list(parts) or [_output_text()]
    return {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": content}


ANSWERED: Final[dict[str, Body]] = {
    OPENAI: {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": DATE,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "warm", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    },
    RESPONSES: {
        "id": "resp_1",
        "object": "response",
        "created_at": DATE,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "model": "m",
        "output": [spoken()],
        "usage": {**_COUNTS, **_DETAILS},
    },
    ANTHROPIC: {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "warm"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": 5, "output_tokens": 3},
    },
    GEMINI: {
        "candidates": [{"content": {"role": "model", "parts": [{"text": "warm"}]}, "finishReason": "STOP", "index": 0}],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 3, "totalTokenCount": 8},
        "modelVersion": "m",
        "responseId": "r_1",
    },
    OLLAMA: {
        "model": "m",
        "created_at": "2023-11-14T22:13:21Z",
        "message": {"role": "assistant", "content": "warm"},
        "done": True,
        "done_reason": "stop",
        "total_duration": 7,
        "prompt_eval_count": 5,
        "eval_count": 3,
    },
    GENERATE: {
        "model": "m",
        "created_at": "2023-11-14T22:13:21Z",
        "response": "warm",
        "done": True,
        "done_reason": "stop",
        "total_duration": 7,
        "prompt_eval_count": 5,
        "eval_count": 3,
    },
    COMPLETIONS: {
        "id": "cmpl-1",
        "object": "text_completion",
        "created": DATE,
        "model": "m",
        "choices": [{"index": 0, "text": "warm", "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8},
    },
}

# -- how the formats spell it


def said(finish: str = "stop", logprobs: Any = None, **message: Any) -> Body:
    """The one choice of Chat Completions."""
    whole = {"role": "assistant", "content": "warm", "refusal": None, **message}
    return {"choices": [{"index": 0, "message": whole, "logprobs": logprobs, "finish_reason": finish}]}


def output(*items: Body) -> Body:
    return {"output": list(items)}


def blocks(*blocks: Body, **more: Any) -> Body:
    return {"content": list(blocks), **more}


def candidate(*parts: Body, **more: Any) -> Body:
    content = {"role": "model", "parts": list(parts) or [{"text": "warm"}]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0, **more}]}


def line(**message: Any) -> Body:
    return {"message": {"role": "assistant", "content": "warm", **message}}


def text_choice(finish: str = "stop", logprobs: Any = None) -> Body:
    return {"choices": [{"index": 0, "text": "warm", "logprobs": logprobs, "finish_reason": finish}]}


WARM: Final = {"type": "text", "text": "warm"}
THOUGHT: Final = {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]}


def call(number: int) -> Body:
    inner = {"name": "look", "arguments": f'{{"at": {number}}}'}
    return {"id": f"call_{number}", "type": "function", "function": inner}


def item(number: int) -> Body:
    told = {"call_id": f"call_{number}", "name": "look", "arguments": f'{{"at": {number}}}', "status": "completed"}
    return {"type": "function_call", "id": f"fc_{number}", **told}


def used(number: int) -> Body:
    return {"type": "tool_use", "id": f"toolu_{number}", "name": "look", "input": {"at": number}}


def part_call(number: int) -> Body:
    return {"functionCall": {"name": "look", "args": {"at": number}}}


def line_call(number: int) -> Body:
    return {"function": {"name": "look", "arguments": {"at": number}}}


def tokens(*, bytes: bool) -> list[Body]:
    """What is told of the tokens of ``warm``."""
    told: list[Body] = []
    for token in ("wa", "rm"):
        more = {"bytes": list(token.encode())} if bytes else {}
        told.append({"token": token, "logprob": -0.5, **more, "top_logprobs": []})
    return told


URL: Final = "https://a.example/"
SPOT: Final = {"start_index": 0, "end_index": 4, "url": URL, "title": "A"}
FOUND: Final = {
    "type": "web_search_result_location",
    "url": URL,
    "title": "A",
    "cited_text": "c",
    "encrypted_index": "E",
}

# -- how it is found in what was read


def every(response: Response) -> Iterator[Part]:
    for choice in response.choices:
        yield from choice.parts


def words(response: Response) -> object:
    return ["".join(it.text for it in choice.parts if isinstance(it, Text)) for choice in response.choices]


def calls(response: Response) -> object:
    found = [it for it in every(response) if isinstance(it, ToolCall) and not it.server]
    return [(it.name, it.arguments if it.kind == "custom" else json.loads(it.arguments or "{}")) for it in found]


def thought(*fields: str) -> Callable[[Response], object]:
    return lambda response: [
        tuple(getattr(it, n) for n in fields) for it in every(response) if isinstance(it, Reasoning)
    ]


def usage(*fields: str) -> Callable[[Response], object]:
    return lambda it: None if it.usage is None else tuple(getattr(it.usage, name) for name in fields)


def counted(response: Response) -> object:
    """Whether usage tells what only its provider counts, of which each example has 77."""
    usage = response.usage
    return usage is not None and any(b"77" in bytes(raw) for raw in usage.raw.values())


def stops(response: Response) -> object:
    return [(it.reason, it.stop_sequence) for it in response.choices]


def logprobs(response: Response) -> object:
    """Tokens, and how probable each was."""
    told = [json.loads(bytes(raw)) for choice in response.choices for raw in choice.logprobs]
    return [(it["token"], it["logprob"]) for piece in told for it in piece.get("content") or ()]


def aliens(response: Response) -> object:
    kinds = [it.kind for it in every(response) if isinstance(it, Opaque)]
    return kinds + [it.server for it in every(response) if isinstance(it, ToolCall) and it.server]


def head(name: str) -> Callable[[Response], object]:
    return lambda response: getattr(response.start, name)


def own(name: str) -> Callable[[Response], object]:
    """A member without a word in the IR: of the answer, or of a choice."""

    def read(response: Response) -> object:
        holders = [response.start.extra, response.extra]
        for choice in response.choices:
            holders += [choice.extra, choice.stop_extra]
        return next((json.loads(bytes(it[name])) for it in holders if name in it), None)

    return read


def signatures(response: Response) -> object:
    """What gemini signed parts with that are no thoughts."""
    holders = [it.extra for it in every(response) if not isinstance(it, Opaque)]
    return [json.loads(bytes(it["thoughtSignature"])) for it in holders if "thoughtSignature" in it]


def durations(response: Response) -> object:
    """How long it took, in nanoseconds: among what ollama counts."""
    told = {} if response.usage is None else response.usage.raw
    return json.loads(bytes(told["total_duration"])) if "total_duration" in told else None


def _stop(name: str, reason: str, sequence: str | None, bodies: Mapping[str, Body]) -> Answer:
    return Answer(f"ends: {name}", stops, [(reason, sequence)], bodies)


_CACHED: Final = {"input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0}}
_PONDERED: Final = {"output_tokens_details": {"reasoning_tokens": 2}}

ANSWERS: Final = (
    Answer("text", words, ["warm"], {format: {} for format in ANSWERED}),
    Answer("model", head("model"), "m", {format: {} for format in ANSWERED}),
    Answer(
        "id",
        head("id"),
        "chatcmpl-1",
        {format: {} for format in (OPENAI, RESPONSES, ANTHROPIC, GEMINI, COMPLETIONS)},
        {RESPONSES: "resp_1", ANTHROPIC: "msg_1", GEMINI: "r_1", COMPLETIONS: "cmpl-1"},
    ),
    Answer(
        "date",
        head("created"),
        DATE,
        {
            **{format: {} for format in (OPENAI, RESPONSES, OLLAMA, GENERATE, COMPLETIONS)},
            GEMINI: {"createTime": "2023-11-14T22:13:21Z"},
        },
    ),
    Answer(
        "thought",
        thought("text"),
        [("hm",)],
        {
            OPENAI: said(reasoning_content="hm"),
            RESPONSES: output(THOUGHT, spoken()),
            ANTHROPIC: blocks({"type": "thinking", "thinking": "hm", "signature": ""}, WARM),
            GEMINI: candidate({"text": "hm", "thought": True}, {"text": "warm"}),
            OLLAMA: line(thinking="hm"),
            GENERATE: {"thinking": "hm"},
        },
    ),
    Answer(
        "thought, signed",
        thought("text", "signature"),
        [("hm", SIGN)],
        {
            RESPONSES: output({**THOUGHT, "encrypted_content": SIGN}, spoken()),
            ANTHROPIC: blocks({"type": "thinking", "thinking": "hm", "signature": SIGN}, WARM),
            GEMINI: candidate({"text": "hm", "thought": True, "thoughtSignature": SIGN}, {"text": "warm"}),
        },
    ),
    Answer(
        "thought, hidden",
        thought("redacted"),
        [("Uk0=",)],
        {
            ANTHROPIC: blocks({"type": "redacted_thinking", "data": "Uk0="}, WARM),
        },
    ),
    Answer(
        "call",
        calls,
        [("look", {"at": 1})],
        {
            OPENAI: said("tool_calls", content=None, tool_calls=[call(1)]),
            RESPONSES: output(item(1)),
            ANTHROPIC: blocks(used(1), stop_reason="tool_use"),
            GEMINI: candidate(part_call(1)),
            OLLAMA: line(content="", tool_calls=[line_call(1)]),
        },
    ),
    Answer(
        "parallel calls after words",
        lambda response: (words(response), calls(response)),
        (["warm"], [("look", {"at": 1}), ("look", {"at": 2})]),
        {
            OPENAI: said("tool_calls", tool_calls=[call(1), call(2)]),
            RESPONSES: output(spoken(), item(1), item(2)),
            ANTHROPIC: blocks(WARM, used(1), used(2), stop_reason="tool_use"),
            GEMINI: candidate({"text": "warm"}, part_call(1), part_call(2)),
            OLLAMA: line(tool_calls=[line_call(1), line_call(2)]),
        },
    ),
    Answer(
        "signature of a call",
        signatures,
        [SIGN],
        {GEMINI: candidate({**part_call(1), "thoughtSignature": SIGN})},
    ),
    Answer(
        "custom call",
        calls,
        [("run", "ls -l")],
        {
            OPENAI: said(
                "tool_calls",
                content=None,
                tool_calls=[{"id": "call_1", "type": "custom", "custom": {"name": "run", "input": "ls -l"}}],
            ),
            RESPONSES: output(
                {"type": "custom_tool_call", "id": "ctc_1", "call_id": "call_1", "name": "run", "input": "ls -l"}
            ),
        },
    ),
    Answer(
        "work of a built-in tool",
        aliens,
        ["web_search_call"],
        {
            RESPONSES: output(
                {
                    "type": "web_search_call",
                    "id": "ws_1",
                    "status": "completed",
                    "action": {"type": "search", "query": "x"},
                },
                spoken(),
            ),
            ANTHROPIC: blocks(
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                WARM,
            ),
            GEMINI: candidate(
                {"executableCode": {"language": "PYTHON", "code": "1"}},
                {"codeExecutionResult": {"outcome": "OUTCOME_OK", "output": "1"}},
                {"text": "warm"},
            ),
        },
        {
            ANTHROPIC: ["web_search_tool_result", "server_tool_use"],
            GEMINI: ["executableCode", "codeExecutionResult"],
        },
    ),
    Answer(
        "citation of an address",
        lambda response: [(c.url, c.title) for it in every(response) if isinstance(it, Text) for c in it.citations],
        [(URL, "A")],
        {
            OPENAI: said(annotations=[{"type": "url_citation", "url_citation": SPOT}]),
            RESPONSES: output(spoken(_output_text(annotations=[{"type": "url_citation", **SPOT}]))),
            ANTHROPIC: blocks({**WARM, "citations": [FOUND]}),
        },
    ),
    Answer(
        "citation of a document",
        lambda response: [c.cited_text for it in every(response) if isinstance(it, Text) for c in it.citations],
        ["c"],
        {
            ANTHROPIC: blocks(
                {
                    **WARM,
                    "citations": [
                        {
                            "type": "char_location",
                            "cited_text": "c",
                            "document_index": 0,
                            "document_title": None,
                            "file_id": None,
                            "start_char_index": 0,
                            "end_char_index": 1,
                        }
                    ],
                }
            ),
        },
    ),
    Answer(
        "grounding",
        own("groundingMetadata"),
        {"webSearchQueries": ["x"]},
        {GEMINI: candidate(groundingMetadata={"webSearchQueries": ["x"]})},
    ),
    Answer(
        "refusal",
        lambda response: [it.text for it in every(response) if isinstance(it, Refusal)],
        ["No."],
        {
            OPENAI: said(content=None, refusal="No."),
            RESPONSES: output(spoken({"type": "refusal", "refusal": "No."})),
        },
    ),
    Answer(
        "image",
        lambda response: [(it.kind, it.data) for it in every(response) if isinstance(it, Media)],
        [("image", PNG)],
        {GEMINI: candidate({"text": "warm"}, {"inlineData": {"mimeType": "image/png", "data": PNG}})},
    ),
    Answer(
        "speech",
        lambda response: [(it.data, it.text) for it in every(response) if isinstance(it, Media)],
        [(WAV, "hello")],
        {
            OPENAI: said(
                content=None, audio={"id": "audio_1", "data": WAV, "transcript": "hello", "expires_at": DATE + 60}
            )
        },
    ),
    Answer(
        "log probabilities",
        logprobs,
        [("wa", -0.5), ("rm", -0.5)],
        {
            OPENAI: said(logprobs={"content": tokens(bytes=True), "refusal": None}),
            RESPONSES: output(spoken(_output_text(logprobs=tokens(bytes=True)))),
            GEMINI: candidate(
                logprobsResult={
                    "chosenCandidates": [{"token": it, "logProbability": -0.5} for it in ("wa", "rm")],
                    "topCandidates": [{"candidates": []}, {"candidates": []}],
                }
            ),
            OLLAMA: {"logprobs": tokens(bytes=True)},
            GENERATE: {"logprobs": tokens(bytes=True)},
            COMPLETIONS: text_choice(
                logprobs={
                    "tokens": ["wa", "rm"],
                    "token_logprobs": [-0.5, -0.5],
                    "top_logprobs": [{}, {}],
                    "text_offset": [0, 2],
                }
            ),
        },
    ),
    Answer(
        "several answers",
        words,
        ["warm", "cold"],
        {
            OPENAI: {
                "choices": [
                    {**said()["choices"][0], "index": number, "message": {"role": "assistant", "content": text}}
                    for number, text in enumerate(("warm", "cold"))
                ]
            },
            GEMINI: {
                "candidates": [
                    {**candidate({"text": text})["candidates"][0], "index": number}
                    for number, text in enumerate(("warm", "cold"))
                ]
            },
            COMPLETIONS: {
                "choices": [
                    {**text_choice()["choices"][0], "index": number, "text": text}
                    for number, text in enumerate(("warm", "cold"))
                ]
            },
        },
    ),
    Answer("usage", usage("input_tokens", "output_tokens"), (5, 3), {format: {} for format in ANSWERED}),
    Answer(
        "usage: read from a cache",
        usage("input_tokens", "cache_read_input_tokens"),
        (5, 2),
        {
            OPENAI: {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "total_tokens": 8,
                    "prompt_tokens_details": {"cached_tokens": 2},
                }
            },
            RESPONSES: {"usage": {**_COUNTS, **_DETAILS, **_CACHED}},
            ANTHROPIC: {"usage": {"input_tokens": 3, "cache_read_input_tokens": 2, "output_tokens": 3}},
            GEMINI: {
                "usageMetadata": {
                    "promptTokenCount": 5,
                    "cachedContentTokenCount": 2,
                    "candidatesTokenCount": 3,
                    "totalTokenCount": 8,
                }
            },
        },
    ),
    Answer(
        "usage: written to a cache",
        usage("input_tokens", "cache_creation_input_tokens"),
        (5, 2),
        {
            OPENAI: {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "total_tokens": 8,
                    "prompt_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 2},
                }
            },
            RESPONSES: {
                "usage": {
                    **_COUNTS,
                    **_DETAILS,
                    "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 2},
                }
            },
            ANTHROPIC: {"usage": {"input_tokens": 3, "cache_creation_input_tokens": 2, "output_tokens": 3}},
        },
    ),
    Answer(
        "usage: what else is counted",
        counted,
        True,
        {
            OPENAI: {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "total_tokens": 8,
                    "completion_tokens_details": {"accepted_prediction_tokens": 77},
                }
            },
            ANTHROPIC: {
                "usage": {
                    "input_tokens": 5,
                    "output_tokens": 3,
                    "server_tool_use": {"web_search_requests": 77, "web_fetch_requests": 0},
                }
            },
        },
    ),
    Answer(
        "usage: thinking",
        usage("output_tokens", "reasoning_output_tokens"),
        (3, 2),
        {
            OPENAI: {
                "usage": {
                    "prompt_tokens": 5,
                    "completion_tokens": 3,
                    "total_tokens": 8,
                    "completion_tokens_details": {"reasoning_tokens": 2},
                }
            },
            RESPONSES: {"usage": {**_COUNTS, **_DETAILS, **_PONDERED}},
            ANTHROPIC: {
                "usage": {"input_tokens": 5, "output_tokens": 3, "output_tokens_details": {"thinking_tokens": 2}}
            },
            GEMINI: {
                "usageMetadata": {
                    "promptTokenCount": 5,
                    "candidatesTokenCount": 1,
                    "thoughtsTokenCount": 2,
                    "totalTokenCount": 8,
                }
            },
        },
    ),
    Answer(
        "no usage",
        lambda response: response.usage is None or response.usage.input_tokens is None,
        True,
        {
            OLLAMA: {"prompt_eval_count": GONE, "eval_count": GONE},
            GENERATE: {"prompt_eval_count": GONE, "eval_count": GONE},
        },
    ),
    _stop("of itself", "stop", None, {format: {} for format in ANSWERED}),
    _stop(
        "most tokens",
        "length",
        None,
        {
            OPENAI: said("length"),
            RESPONSES: {"status": "incomplete", "incomplete_details": {"reason": "max_output_tokens"}},
            ANTHROPIC: {"stop_reason": "max_tokens"},
            GEMINI: candidate(finishReason="MAX_TOKENS"),
            OLLAMA: {"done_reason": "length"},
            GENERATE: {"done_reason": "length"},
            COMPLETIONS: text_choice("length"),
        },
    ),
    _stop(
        "calls",
        "tool_calls",
        None,
        {
            OPENAI: said("tool_calls", content=None, tool_calls=[call(1)]),
            RESPONSES: output(item(1)),
            ANTHROPIC: blocks(used(1), stop_reason="tool_use"),
            GEMINI: candidate(part_call(1)),
            OLLAMA: line(content="", tool_calls=[line_call(1)]),
        },
    ),
    _stop("stop string", "stop_sequence", "END", {ANTHROPIC: {"stop_reason": "stop_sequence", "stop_sequence": "END"}}),
    _stop(
        "filtered",
        "content_filter",
        None,
        {
            OPENAI: said("content_filter"),
            RESPONSES: {"status": "incomplete", "incomplete_details": {"reason": "content_filter"}},
            GEMINI: candidate(finishReason="SAFETY"),
            COMPLETIONS: text_choice("content_filter"),
        },
    ),
    _stop(
        "prompt refused",
        "content_filter",
        None,
        {GEMINI: {"candidates": GONE, "promptFeedback": {"blockReason": "SAFETY"}}},
    ),
    _stop("refused", "refusal", None, {ANTHROPIC: {"stop_reason": "refusal"}}),
    _stop("paused", "pause", None, {ANTHROPIC: {"stop_reason": "pause_turn"}}),
    _stop("context full", "context_window", None, {ANTHROPIC: {"stop_reason": "model_context_window_exceeded"}}),
    _stop("another reason", "other", None, {GEMINI: candidate(finishReason="OTHER")}),
    _stop("failed", "error", None, {GEMINI: candidate(finishReason="MALFORMED_FUNCTION_CALL")}),
    Answer(
        "service tier",
        head("service_tier"),
        "default",
        {OPENAI: {"service_tier": "default"}, RESPONSES: {"service_tier": "default"}},
    ),
    Answer(
        "fingerprint",
        own("system_fingerprint"),
        "fp_1",
        {OPENAI: {"system_fingerprint": "fp_1"}, COMPLETIONS: {"system_fingerprint": "fp_1"}},
    ),
    Answer(
        "safety ratings",
        own("safetyRatings"),
        [{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}],
        {GEMINI: candidate(safetyRatings=[{"category": "HARM_CATEGORY_HARASSMENT", "probability": "LOW"}])},
    ),
    Answer(
        "container",
        own("container"),
        {"id": "c_1", "expires_at": "2026-01-01T00:00:00Z"},
        {ANTHROPIC: {"container": {"id": "c_1", "expires_at": "2026-01-01T00:00:00Z"}}},
    ),
    Answer("context", own("context"), [1, 2], {GENERATE: {"context": [1, 2]}}),
    Answer("durations", durations, 7, {OLLAMA: {}, GENERATE: {}}),
)
