"""How a request is to be answered, sampled, billed and kept: a table of features, each in the words of their formats."""

from __future__ import annotations

import json
from typing import Final

from .common import ANTHROPIC, COMPLETIONS, GENERATE, OLLAMA, OPENAI, RESPONSES
from .gemini_format import GEMINI
from .matrix_content import HELLO, KIND, SPOKEN
from .matrix_spelling import (
    ALL,
    ASK,
    ASKED,
    DECLARED,
    SCHEMA,
    SIGN,
    STREAM,
    Feature,
    aliens,
    block,
    chat,
    config,
    contents,
    everywhere,
    format_of,
    given,
    marked,
    member,
    modelled,
    options,
    own,
    replied,
    setting,
    thinking,
    thought,
    turns,
    user,
)

THINKING: Final = (
    Feature(
        "thinking: how hard",
        thinking("effort"),
        "high",
        {
            OPENAI: {"reasoning_effort": "high"},
            RESPONSES: {"reasoning": {"effort": "high"}},
            ANTHROPIC: {"output_config": {"effort": "high"}},
            GEMINI: config(thinkingConfig={"thinkingLevel": "HIGH"}),
            OLLAMA: {"think": "high"},
            GENERATE: {"think": "high"},
        },
    ),
    Feature(
        "thinking: so many tokens",
        thinking("budget_tokens"),
        2048,
        {
            ANTHROPIC: {"max_tokens": 4096, "thinking": {"type": "enabled", "budget_tokens": 2048}},
            GEMINI: config(thinkingConfig={"thinkingBudget": 2048}),
        },
    ),
    Feature(
        "thinking: on",
        thinking("mode"),
        "enabled",
        {
            ANTHROPIC: {"thinking": {"type": "adaptive"}},
            GEMINI: config(thinkingConfig={"thinkingBudget": -1}),
            OLLAMA: {"think": True},
            GENERATE: {"think": True},
        },
        {ANTHROPIC: "adaptive", GEMINI: "adaptive"},
    ),
    Feature(
        "thinking: off",
        thinking("mode"),
        "disabled",
        {
            OPENAI: {"reasoning_effort": "none"},
            RESPONSES: {"reasoning": {"effort": "none"}},
            ANTHROPIC: {"thinking": {"type": "disabled"}},
            GEMINI: config(thinkingConfig={"thinkingBudget": 0}),
            OLLAMA: {"think": False},
            GENERATE: {"think": False},
        },
    ),
    Feature(
        "thinking: shown",
        thinking("summary"),
        "auto",
        {
            RESPONSES: {"reasoning": {"summary": "auto"}},
            ANTHROPIC: {"thinking": {"type": "adaptive", "display": "summarized"}},
            GEMINI: config(thinkingConfig={"includeThoughts": True}),
        },
    ),
    Feature(
        "thought of an earlier turn, signed",
        thought("text", "signature"),
        [("hm", SIGN)],
        {
            RESPONSES: turns(
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [{"type": "summary_text", "text": "hm"}],
                    "encrypted_content": SIGN,
                },
                SPOKEN,
            ),
            ANTHROPIC: replied(
                {"type": "thinking", "thinking": "hm", "signature": SIGN}, {"type": "text", "text": "hello"}
            ),
            GEMINI: modelled({"text": "hm", "thought": True, "thoughtSignature": SIGN}, {"text": "hello"}),
        },
    ),
    Feature(
        "signature of an earlier call",
        member("thoughtSignature"),
        [SIGN],
        {
            GEMINI: {
                **DECLARED,
                **contents(
                    ASKED,
                    {
                        "role": "model",
                        "parts": [
                            {"functionCall": {"name": "look", "args": {"at": 0}}, "thoughtSignature": SIGN},
                        ],
                    },
                    {
                        "role": "user",
                        "parts": [{"functionResponse": {"name": "look", "response": {"output": "warm"}}}],
                    },
                ),
            }
        },
        beside=("tools",),
    ),
    Feature(
        "thought of an earlier turn, hidden",
        thought("redacted"),
        [("Uk0=",)],
        {ANTHROPIC: replied({"type": "redacted_thinking", "data": "Uk0="}, {"type": "text", "text": "hello"})},
    ),
    Feature(
        "thought of an earlier turn, unsigned",
        thought("text"),
        [("hm",)],
        {
            OPENAI: replied(content="hello", reasoning_content="hm"),
            OLLAMA: chat(ASK, {**HELLO, "thinking": "hm"}, KIND),
        },
    ),
)

FORMS: Final = (
    Feature(
        "JSON",
        format_of,
        ("json_object", None),
        {
            OPENAI: {"response_format": {"type": "json_object"}},
            RESPONSES: {"text": {"format": {"type": "json_object"}}},
            GEMINI: config(responseMimeType="application/json"),
            OLLAMA: {"format": "json"},
            GENERATE: {"format": "json"},
        },
    ),
    Feature(
        "JSON by a schema",
        format_of,
        ("json_schema", SCHEMA),
        {
            OPENAI: {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "r", "schema": SCHEMA, "strict": True},
                }
            },
            RESPONSES: {"text": {"format": {"type": "json_schema", "name": "r", "schema": SCHEMA, "strict": True}}},
            ANTHROPIC: {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            GEMINI: config(responseMimeType="application/json", responseJsonSchema=SCHEMA),
            OLLAMA: {"format": SCHEMA},
            GENERATE: {"format": SCHEMA},
        },
    ),
    Feature(
        "verbosity",
        setting("verbosity"),
        "low",
        {OPENAI: {"verbosity": "low"}, RESPONSES: {"text": {"verbosity": "low"}}},
    ),
    Feature(
        "speech wanted",
        own("modalities", "audio"),
        {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
        {OPENAI: {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}}},
    ),
    Feature(
        "images wanted",
        own("generationConfig.responseModalities"),
        {"generationConfig.responseModalities": ["TEXT", "IMAGE"]},
        {GEMINI: config(responseModalities=["TEXT", "IMAGE"])},
    ),
    Feature(
        "prediction",
        own("prediction"),
        {"prediction": {"type": "content", "content": "x"}},
        {OPENAI: {"prediction": {"type": "content", "content": "x"}}},
    ),
)

_STOPS: Final = {OPENAI: "stop", ANTHROPIC: "stop_sequences", COMPLETIONS: "stop"}

SAMPLING: Final = (
    Feature(
        "stop strings",
        setting("stop"),
        ("END", "FIN"),
        {
            **{format: {name: ["END", "FIN"]} for format, name in _STOPS.items()},
            GEMINI: config(stopSequences=["END", "FIN"]),
            OLLAMA: options(stop=["END", "FIN"]),
            GENERATE: options(stop=["END", "FIN"]),
        },
    ),
    Feature(
        "many stop strings",
        setting("stop"),
        tuple("abcdefg"),
        {
            ANTHROPIC: {"stop_sequences": list("abcdefg")},
            OLLAMA: options(stop=list("abcdefg")),
            GENERATE: options(stop=list("abcdefg")),
        },
    ),
    Feature(
        "most tokens",
        setting("max_output_tokens"),
        77,
        {
            OPENAI: {"max_completion_tokens": 77},
            RESPONSES: {"max_output_tokens": 77},
            ANTHROPIC: {"max_tokens": 77},
            GEMINI: config(maxOutputTokens=77),
            OLLAMA: options(num_predict=77),
            GENERATE: options(num_predict=77),
            COMPLETIONS: {"max_tokens": 77},
        },
    ),
    Feature("temperature", setting("temperature"), 0.5, everywhere("temperature", 0.5, *ALL)),
    Feature(
        "temperature above 1",
        setting("temperature"),
        1.5,
        everywhere("temperature", 1.5, *(format for format in ALL if format != ANTHROPIC)),
    ),
    Feature("top_p", setting("top_p"), 0.5, everywhere("top_p", 0.5, *ALL)),
    Feature("top_k", setting("top_k"), 7, everywhere("top_k", 7, ANTHROPIC, GEMINI, OLLAMA, GENERATE)),
    Feature("seed", setting("seed"), 7, everywhere("seed", 7, OPENAI, GEMINI, OLLAMA, GENERATE, COMPLETIONS)),
    Feature(
        "frequency penalty",
        setting("frequency_penalty"),
        0.5,
        everywhere("frequency_penalty", 0.5, OPENAI, GEMINI, OLLAMA, GENERATE, COMPLETIONS),
    ),
    Feature(
        "presence penalty",
        setting("presence_penalty"),
        0.5,
        everywhere("presence_penalty", 0.5, OPENAI, GEMINI, OLLAMA, GENERATE, COMPLETIONS),
    ),
    Feature(
        "logit bias",
        lambda request: None if request.logit_bias is None else json.loads(request.logit_bias),
        {"50256": -100},
        everywhere("logit_bias", {"50256": -100}, OPENAI, COMPLETIONS),
    ),
    Feature(
        "log probabilities",
        setting("logprobs", "top_logprobs"),
        (True, 3),
        {
            OPENAI: {"logprobs": True, "top_logprobs": 3},
            RESPONSES: {"include": ["message.output_text.logprobs"], "top_logprobs": 3},
            GEMINI: config(responseLogprobs=True, logprobs=3),
            OLLAMA: {"logprobs": True, "top_logprobs": 3},
            GENERATE: {"logprobs": True, "top_logprobs": 3},
            COMPLETIONS: {"logprobs": 3},
        },
    ),
    Feature(
        "several answers",
        setting("n"),
        2,
        {OPENAI: {"n": 2}, GEMINI: config(candidateCount=2), COMPLETIONS: {"n": 2}},
    ),
    Feature("best of several", own("best_of"), {"best_of": 3}, {COMPLETIONS: {"best_of": 3}}),
)

HOUSE: Final = (
    Feature(
        "stream",
        setting("stream"),
        True,
        {format: {STREAM: True} if format == GEMINI else {"stream": True} for format in ALL},
    ),
    Feature(
        "stream with usage",
        setting("stream", "stream_usage"),
        (True, True),
        {
            **{format: {"stream": True, "stream_options": {"include_usage": True}} for format in (OPENAI, COMPLETIONS)},
            **{format: {"stream": True} for format in (RESPONSES, ANTHROPIC, OLLAMA, GENERATE)},
            GEMINI: {STREAM: True},
        },
    ),
    Feature(
        "user",
        setting("user"),
        "u-1",
        {**everywhere("user", "u-1", OPENAI, RESPONSES, COMPLETIONS), ANTHROPIC: {"metadata": {"user_id": "u-1"}}},
    ),
    Feature(
        "metadata",
        setting("metadata"),
        {"a": "b"},
        {OPENAI: {"metadata": {"a": "b"}}, RESPONSES: {"metadata": {"a": "b"}}, GEMINI: {"labels": {"a": "b"}}},
    ),
    Feature(
        "service tier: flex",
        setting("service_tier"),
        "flex",
        {
            OPENAI: {"service_tier": "flex"},
            RESPONSES: {"service_tier": "flex"},
            GEMINI: {"serviceTier": "flex"},
        },
    ),
    Feature(
        "service tier: the plain one",
        setting("service_tier"),
        "default",
        {
            OPENAI: {"service_tier": "default"},
            RESPONSES: {"service_tier": "default"},
            ANTHROPIC: {"service_tier": "standard_only"},
            GEMINI: {"serviceTier": "standard"},
        },
        {ANTHROPIC: "standard_only", GEMINI: "standard"},
    ),
    Feature(
        "cache mark",
        marked,
        1,
        {
            OPENAI: user({"type": "text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}),
            RESPONSES: given({"type": "input_text", "text": "hi", "prompt_cache_breakpoint": {"mode": "explicit"}}),
            ANTHROPIC: user({"type": "text", "text": "hi", "cache_control": {"type": "ephemeral"}}),
        },
    ),
    Feature(
        "cache mark on a tool",
        lambda request: [it.cache is not None for it in request.tools],
        [True],
        {ANTHROPIC: {"tools": [block(cache_control={"type": "ephemeral"})]}},
    ),
    Feature(
        "cache mark on the whole",
        lambda request: request.cache is not None,
        True,
        {ANTHROPIC: {"cache_control": {"type": "ephemeral"}}},
    ),
    Feature(
        "key of the prompt cache",
        own("prompt_cache_key"),
        {"prompt_cache_key": "k"},
        {OPENAI: {"prompt_cache_key": "k"}, RESPONSES: {"prompt_cache_key": "k"}},
    ),
    Feature(
        "cached content",
        own("cachedContent"),
        {"cachedContent": "cachedContents/1"},
        {GEMINI: {"cachedContent": "cachedContents/1"}},
    ),
    Feature("answer kept", own("store"), {"store": True}, {OPENAI: {"store": True}, RESPONSES: {"store": True}}),
    Feature(
        "answer before this one",
        own("previous_response_id"),
        {"previous_response_id": "resp_1"},
        {RESPONSES: {"previous_response_id": "resp_1"}},
    ),
    Feature(
        "stored conversation",
        own("conversation"),
        {"conversation": "conv_1"},
        {RESPONSES: {"conversation": "conv_1"}},
    ),
    Feature("background", own("background"), {"background": True}, {RESPONSES: {"background": True}}),
    Feature("truncation", own("truncation"), {"truncation": "auto"}, {RESPONSES: {"truncation": "auto"}}),
    Feature("most calls of tools", own("max_tool_calls"), {"max_tool_calls": 3}, {RESPONSES: {"max_tool_calls": 3}}),
    Feature("stored prompt", own("prompt"), {"prompt": {"id": "pmpt_1"}}, {RESPONSES: {"prompt": {"id": "pmpt_1"}}}),
    Feature("container", own("container"), {"container": "c_1"}, {ANTHROPIC: {"container": "c_1"}}),
    Feature(
        "safety settings",
        own("safetySettings"),
        {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]},
        {GEMINI: {"safetySettings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]}},
    ),
    Feature(
        "suffix",
        own("suffix"),
        {"suffix": "end"},
        {GENERATE: {"suffix": "end"}, COMPLETIONS: {"suffix": "end"}},
    ),
    Feature("echo", own("echo"), {"echo": True}, {COMPLETIONS: {"echo": True}}),
    Feature(
        "several prompts",
        aliens,
        ["several prompts"],
        {COMPLETIONS: {"prompt": ["hi", "ho"]}},
    ),
    Feature("prompt of tokens", aliens, ["token ids"], {COMPLETIONS: {"prompt": [1, 2]}}),
    Feature("raw prompt", own("raw"), {"raw": True}, {GENERATE: {"raw": True}}),
    Feature("template", own("template"), {"template": "{{ .Prompt }}"}, {GENERATE: {"template": "{{ .Prompt }}"}}),
    Feature("context", own("context"), {"context": [1, 2]}, {GENERATE: {"context": [1, 2]}}),
    Feature(
        "time in memory",
        own("keep_alive"),
        {"keep_alive": "5m"},
        {OLLAMA: {"keep_alive": "5m"}, GENERATE: {"keep_alive": "5m"}},
    ),
    Feature(
        "size of the context",
        own("options.num_ctx"),
        {"options.num_ctx": 8192},
        {OLLAMA: options(num_ctx=8192), GENERATE: options(num_ctx=8192)},
    ),
)

SETTINGS: Final = (*THINKING, *FORMS, *SAMPLING, *HOUSE)
