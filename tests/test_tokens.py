"""Counting: vocabularies by model, and what of a request takes tokens, in every format alike.

The conversation and its counts are those of OpenAI's cookbook, "How to count tokens with tiktoken" (read 2026-11-21), where
the API's own answer stands beside them.
"""

import json
import sys

import pytest
from headgate.gateway import registry, tokens, vocabulary
from headgate.gateway.codecs.base import RequestFacts
from headgate.gateway.counted import QUICK_BYTES, CountedFacts

COOKBOOK = [
    {
        "role": "system",
        "content": "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    },
    {"role": "system", "name": "example_user", "content": "New synergies will help drive top-line growth."},
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Things working well together will increase revenue.",
    },
    {
        "role": "system",
        "name": "example_user",
        "content": "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    },
    {
        "role": "system",
        "name": "example_assistant",
        "content": "Let's talk later when we're less busy about how to do better.",
    },
    {
        "role": "user",
        "content": "This late pivot means we don't have time to boil the ocean for the client deliverable.",
    },
]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
PIXEL = "iVBORw0KGgo="
SAME = {
    "openai.chat": {"model": "m", "messages": [{"role": "user", "content": "How warm is it?"}]},
    "openai.responses": {"model": "m", "input": "How warm is it?"},
    "openai.completions": {"model": "m", "prompt": "How warm is it?"},
    "anthropic.messages": {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "How warm is it?"}]},
    "gemini": {"model": "m", "contents": [{"role": "user", "parts": [{"text": "How warm is it?"}]}]},
    "ollama.chat": {"model": "m", "messages": [{"role": "user", "content": "How warm is it?"}]},
    "ollama.generate": {"model": "m", "prompt": "How warm is it?"},
}
WITH_TOOL = {
    "openai.chat": {"tools": [{"type": "function", "function": {"name": "warmth", "parameters": SCHEMA}}]},
    "openai.responses": {"tools": [{"type": "function", "name": "warmth", "parameters": SCHEMA, "strict": False}]},
    "anthropic.messages": {"tools": [{"name": "warmth", "input_schema": SCHEMA}]},
    "gemini": {"tools": [{"functionDeclarations": [{"name": "warmth", "parametersJsonSchema": SCHEMA}]}]},
    "ollama.chat": {"tools": [{"type": "function", "function": {"name": "warmth", "parameters": SCHEMA}}]},
}
WITH_IMAGE = {
    "openai.chat": [
        {
            "role": "user",
            "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}],
        }
    ],
    "anthropic.messages": [
        {
            "role": "user",
            "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}],
        }
    ],
}


def request_of(format: str, body: dict):
    return registry.codec(format).decode_request(json.dumps(body).encode(), RequestFacts())


def counted(body: bytes, format="openai.chat", model="gpt-4o") -> CountedFacts:
    codec, around = registry.codec(format), RequestFacts("/v1/chat/completions")
    return CountedFacts(codec, codec.peek(body, around), around, body)


@pytest.mark.parametrize(
    ("model", "total"), [("gpt-4o", 124), ("gpt-4o-mini", 124), ("gpt-4", 129), ("gpt-3.5-turbo", 129)]
)
def test_the_published_example(model, total):
    request = request_of("openai.chat", {"model": model, "messages": COOKBOOK})
    assert tokens.tally(request, model) == tokens.Tally(total, vocabulary.vocabulary_name(model), True)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-5.4", "o200k_base"),
        ("openai/gpt-4.1-mini", "o200k_base"),
        ("ft:gpt-4o-mini:org", "o200k_base"),
        ("gpt-oss:20b", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("gpt-4-turbo", "cl100k_base"),
        ("gpt-35-turbo", "cl100k_base"),
        ("models/gemini-3-pro", "gemma3"),
        ("gemma3:4b", "gemma3"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3"),
        ("us.meta.llama3-1-8b", "llama3"),
        ("llama2:7b", "llama2"),
        ("deepseek-chat", "deepseek_v3"),
        ("Qwen/Qwen3-32B", "qwen3"),
        ("glm-4.6", "glm4"),
        ("moonshotai/kimi-k2", "kimi_k2"),
        ("mistral-large-latest", "mistral_v3"),
        ("phi4", "phi4"),
        ("claude-sonnet-4-5", "o200k_base"),
        ("any", "o200k_base"),
        ("olmo-2", "o200k_base"),
        ("", "o200k_base"),
    ],
)
def test_the_vocabulary_of_a_model(model, name):
    assert vocabulary.vocabulary_name(model) == name


@pytest.mark.parametrize("name", ["o200k_base", "cl100k_base", "llama2", "qwen3", "mistral_v3", "phi4"])
def test_a_mark_that_is_spelled_out_is_words(name):
    words = vocabulary._load(name)
    for mark in ("<|endoftext|>", "<|im_start|>", "</s>"):
        assert words.count(mark) > 2, mark
    assert words.count("") == 0


def test_half_a_letter_counts_as_the_sign_for_it():
    words = vocabulary.vocabulary("gpt-4o")
    assert words.count("a\ud83d b") == words.count("a? b")


@pytest.mark.parametrize("format", SAME)
def test_the_same_words_are_as_many_tokens_in_every_format(format):
    found = tokens.tally(request_of(format, SAME[format]), "gpt-4o")
    assert found == tokens.Tally(5 + 4 + 3, "o200k_base", True)


@pytest.mark.parametrize("format", WITH_TOOL)
def test_tools_count(format):
    bare, offered = SAME[format], {**SAME[format], **WITH_TOOL[format]}
    words = vocabulary.vocabulary("gpt-4o")
    more = (
        tokens.tally(request_of(format, offered), "gpt-4o").tokens
        - tokens.tally(request_of(format, bare), "gpt-4o").tokens
    )
    spelled = words.count("warmth") + words.count(json.dumps(SCHEMA))
    assert abs(more - spelled) <= 6  # spacing of the schema


@pytest.mark.parametrize("format", WITH_IMAGE)
def test_an_image_is_guessed_and_the_tally_says_so(format):
    found = tokens.tally(request_of(format, {**SAME[format], "messages": WITH_IMAGE[format]}), "gpt-4o")
    assert found == tokens.Tally(tokens.IMAGE + 4 + 3, "o200k_base", False)


def test_words_that_the_provider_keeps_are_not_counted_and_the_tally_says_so():
    request = request_of("openai.responses", {**SAME["openai.responses"], "previous_response_id": "resp_1"})
    assert not tokens.tally(request, "gpt-4o").whole


def test_a_conversation_with_tools_counts_calls_and_results():
    body = {
        "model": "m",
        "messages": [
            {"role": "user", "content": "hi"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c", "type": "function", "function": {"name": "warmth", "arguments": '{"city":"Oslo"}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c", "content": "twelve degrees"},
        ],
    }
    words = vocabulary.vocabulary("gpt-4o").count
    wanted = sum(map(words, ["hi", "warmth", '{"city":"Oslo"}', "twelve degrees"])) + 3 * 4 + 3
    assert tokens.tally(request_of("openai.chat", body), "gpt-4o").tokens == wanted


def test_beyond_the_bound_the_size_stands_in(monkeypatch):
    body = {"model": "m", "messages": [{"role": "user", "content": text} for text in ("a b c", "a b c d e f g h", "d")]}
    request = request_of("openai.chat", body)
    assert tokens.tally(request, "gpt-4o") == tokens.Tally(3 + 8 + 1 + 3 * 4 + 3, "o200k_base", True)
    monkeypatch.setattr(tokens, "MAX_CHARACTERS", 6)
    assert tokens.tally(request, "gpt-4o") == tokens.Tally(3 + 4 + 1 + 3 * 4 + 3, "o200k_base", False)


def test_without_the_extra_an_estimate_says_that_it_is_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "splintr", None)
    assert not vocabulary.is_installed()
    request = request_of("openai.chat", SAME["openai.chat"])
    with pytest.raises(vocabulary.NoTokenizer):
        tokens.tally(request, "gpt-4o")
    assert tokens.tally_or_estimate(request, "gpt-4o") == tokens.Tally(4, "", False)


# -- facts


def test_nothing_is_counted_before_a_rule_asks():
    body = json.dumps({"model": "gpt-4o", "messages": COOKBOOK}).encode()
    facts = counted(body)
    assert (facts.exact_tokens, facts.counted, facts.request) == (None, None, None)
    assert facts.tokens == 124
    assert facts.exact_tokens == 124 and facts.counted.vocabulary == "o200k_base"
    assert facts.request is not None and facts.by_size == len(body) // 4


def test_what_cannot_be_decoded_has_the_tokens_of_its_size():
    body = b'{"model": "gpt-4o", "messages": [{"role": "nobody", "content": 7}]}'
    facts = counted(body)
    assert facts.tokens == facts.exact_tokens == len(body) // 4 and facts.counted is None


def test_a_number_that_is_given_stands():
    facts = counted(json.dumps(SAME["openai.chat"]).encode())
    facts.tokens = 250_000
    assert facts.tokens == 250_000 and not facts.slow and facts.request is None


def test_long_requests_are_slow_until_they_are_counted():
    vocabulary.vocabulary("gpt-4o")
    short = counted(b'{"model":"gpt-4o","messages":[]}')
    long = counted(
        json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "a " * QUICK_BYTES}]}).encode()
    )
    assert not short.slow and long.slow
    assert long.tokens > QUICK_BYTES
    assert not long.slow
