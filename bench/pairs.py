"""What translating costs: CPU time per chunk for every pair of formats, of a stream's middle, one chunk per read.

python bench/pairs.py [--kind text|reasoning|arguments] [--formats a,b] [--out FILE]

A chunk is decoded as a provider's and encoded as a caller's, in this process and without sockets. Beside the microseconds
stands the ratio to the cheapest pair of two formats, which is what to compare between machines.
"""

# ruff: noqa: UP031 (templates of JSON are full of braces)

from __future__ import annotations

import argparse
import gc
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

from headgate.gateway import registry
from headgate.gateway.codecs.base import AnswerContext, Codec

Kind = Literal["text", "reasoning", "arguments"]
CHUNKS: Final = 300
ROUNDS: Final = 6
PASSES: Final = 4
"""How often the whole table is gone through: what disturbs a machine for a second disturbs one pass."""
CONTEXT: Final = AnswerContext("req_1", 1_700_000_000, "model", True)


class Spoken(NamedTuple):
    """A stream as its provider writes it: how it begins, and its chunk number n. Shapes are those of published examples."""

    head: Sequence[str]
    chunk: Callable[[int], str]


def sse(data: str, name: str = "") -> str:
    """Return a server-sent event."""
    return f"event: {name}\ndata: {data}\n\n" if name else f"data: {data}\n\n"


def padding(n: int) -> str:
    """Return what OpenAI pads chunks with, so that their length tells less: never the same twice in a row."""
    return "x7BqTz0aLk"[n % 9 :]


def chat(first: str, delta: Callable[[int], str]) -> Spoken:
    """Return Chat Completions, whose chunks differ in their delta alone."""
    envelope = (
        '{"id":"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT","object":"chat.completion.chunk","created":1741569952,'
        '"model":"gpt-5-mini","service_tier":"default","system_fingerprint":"fp_44709d6fcb","choices":[{"index":0,"delta":%s,'
        '"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"%s"}'
    )
    return Spoken([sse(envelope % (first, ""))], lambda n: sse(envelope % (delta(n), padding(n))))


def messages(block: str, delta: Callable[[int], str]) -> Spoken:
    """Return Messages: a block begins, and grows."""
    start = (
        '{"type":"message_start","message":{"id":"msg_01","type":"message","role":"assistant","content":[],'
        '"model":"claude-sonnet-4-5","stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":25,"output_tokens":1}}}'
    )
    block = '{"type":"content_block_start","index":0,"content_block":%s}' % block
    grows = '{"type":"content_block_delta","index":0,"delta":%s}'
    return Spoken(
        [sse(start, "message_start"), sse(block, "content_block_start")],
        lambda n: sse(grows % delta(n), "content_block_delta"),
    )


def responses(item: str, part: str, kind: str, where: str, more: str = "") -> Spoken:
    """Return Responses: an item begins, perhaps a part of it, and grows."""
    response = '{"id":"resp_1","created_at":1741476542,"model":"gpt-5","output":[]}'
    created = '{"type":"response.created","sequence_number":0,"response":%s}' % response
    added = '{"type":"response.output_item.added","sequence_number":1,"output_index":0,"item":%s}' % item
    head = [sse(created, "response.created"), sse(added, "response.output_item.added")]
    if part:
        name, value = part.split(" ", 1)
        head.append(
            sse('{"type":"%s","sequence_number":2,"item_id":"i1","output_index":0,%s}' % (name, where + value), name)
        )
    grows = (
        '{"type":"%s","sequence_number":%d,"item_id":"i1","output_index":0,%s"delta":" word%d"%s,"obfuscation":"%s"}'
    )
    return Spoken(head, lambda n: sse(grows % (kind, n + 3, where, n, more, padding(n)), kind))


def gemini(thought: str) -> Spoken:
    """Return Gemini, which counts anew in each chunk."""

    def chunk(n: int) -> str:
        return (
            'data: {"candidates": [{"content": {"parts": [{"text": " word%d"%s}],"role": "model"},"index": 0}],'
            '"usageMetadata": {"promptTokenCount": 11,"candidatesTokenCount": %d,"totalTokenCount": %d,'
            '"promptTokensDetails": [{"modality": "TEXT","tokenCount": 11}]},"modelVersion": "gemini-2.5-flash",'
            '"responseId": "mAitaLmkHPPlz7IPvtfUqQ4"}\r\n\r\n'
        ) % (n, thought, n + 1, n + 12)

    return Spoken([], chunk)


def ollama(said: str) -> Spoken:
    """Return Ollama's lines, each with the moment it was written."""
    line = '{"model":"llama3.2","created_at":"2026-08-04T08:52:19.%09dZ",%s,"done":false}\n'
    return Spoken([], lambda n: line % (n * 24_407, said % n))


def completions() -> Spoken:
    """Return the legacy Completions as vLLM and its likes write them."""
    chunk = (
        '{"id":"cmpl-7c2c","object":"text_completion","created":1741569952,"model":"llama","choices":[{"index":0,'
        '"text":" word%d","logprobs":null,"finish_reason":null,"stop_reason":null}],"usage":null}'
    )
    return Spoken([], lambda n: sse(chunk % n))


CALL: Final = '"id":"call_1","type":"function","function":{"name":"f","arguments":""}'
PROVIDERS: Final[dict[Kind, dict[str, Spoken]]] = {
    "text": {
        "openai.chat": chat('{"role":"assistant","content":"","refusal":null}', lambda n: '{"content":" word%d"}' % n),
        "anthropic.messages": messages(
            '{"type":"text","text":""}', lambda n: '{"type":"text_delta","text":" word%d"}' % n
        ),
        "openai.responses": responses(
            '{"id":"i1","type":"message","status":"in_progress","role":"assistant","content":[]}',
            'response.content_part.added "part":{"type":"output_text","annotations":[],"logprobs":[],"text":""}',
            "response.output_text.delta",
            '"content_index":0,',
            ',"logprobs":[]',
        ),
        "gemini": gemini(""),
        "ollama.chat": ollama('"message":{"role":"assistant","content":" word%d"}'),
        "ollama.generate": ollama('"response":" word%d"'),
        "openai.completions": completions(),
    },
    "reasoning": {
        "openai.chat": chat('{"role":"assistant","content":""}', lambda n: '{"reasoning_content":" word%d"}' % n),
        "anthropic.messages": messages(
            '{"type":"thinking","thinking":"","signature":""}',
            lambda n: '{"type":"thinking_delta","thinking":" word%d"}' % n,
        ),
        "openai.responses": responses(
            '{"id":"i1","type":"reasoning","summary":[]}',
            'response.reasoning_summary_part.added "part":{"type":"summary_text","text":""}',
            "response.reasoning_summary_text.delta",
            '"summary_index":0,',
        ),
        "gemini": gemini(',"thought": true'),
        "ollama.chat": ollama('"message":{"role":"assistant","content":"","thinking":" word%d"}'),
        "ollama.generate": ollama('"response":"","thinking":" word%d"'),
    },
    "arguments": {
        "openai.chat": chat(
            '{"role":"assistant","content":null,"tool_calls":[{"index":0,%s}]}' % CALL,
            lambda n: '{"tool_calls":[{"index":0,"function":{"arguments":" word%d"}}]}' % n,
        ),
        "anthropic.messages": messages(
            '{"type":"tool_use","id":"toolu_1","name":"f","input":{}}',
            lambda n: '{"type":"input_json_delta","partial_json":" word%d"}' % n,
        ),
        "openai.responses": responses(
            '{"id":"i1","type":"function_call","status":"in_progress","arguments":"","call_id":"call_1","name":"f"}',
            "",
            "response.function_call_arguments.delta",
            "",
        ),
    },
}
"""Formats that are missing send that kind of words whole, or not at all. What they write for it as callers is measured."""
CALLERS: Final = tuple(PROVIDERS["text"])


def measure(provider: Codec, caller: Codec, spoken: Spoken) -> float:
    """Return the CPU time of one chunk in microseconds: the best of several streams, which is what the code costs."""
    head = [frame.encode() for frame in (*spoken.head, spoken.chunk(0))]
    reads = [spoken.chunk(n).encode() for n in range(1, CHUNKS)]
    best = float("inf")
    for _ in range(ROUNDS):
        decoder, encoder = provider.stream_decoder(), caller.stream_encoder(CONTEXT)
        for read in head:
            if (chunk := decoder.feed(read)) is not None:
                encoder.encode(chunk)
        gc.disable()
        began = time.process_time_ns()
        for read in reads:
            chunk = decoder.feed(read)
            assert chunk is not None
            encoder.encode(chunk)
        took = time.process_time_ns() - began
        gc.enable()
        assert decoder.error is None, decoder.error
        best = min(best, took / len(reads) / 1000)
    return best


def table(kind: Kind, formats: Sequence[str]) -> dict[str, dict[str, float]]:
    """Return the microseconds of each pair, by provider and caller."""
    codecs = {name: registry.codec(name) for name in formats}
    spoken = {name: it for name, it in PROVIDERS[kind].items() if name in codecs}
    figures = {here: dict.fromkeys(codecs, float("inf")) for here in spoken}
    for _ in range(PASSES):
        for here, row in figures.items():
            for there in row:
                row[there] = min(row[there], round(measure(codecs[here], codecs[there], spoken[here]), 2))
    return figures


def cheapest(figures: dict[str, dict[str, float]]) -> float:
    """Return the microseconds of the cheapest pair of two formats, 0 if there is none."""
    return min((cost for here, row in figures.items() for there, cost in row.items() if here != there), default=0.0)


def print_table(kind: Kind, figures: dict[str, dict[str, float]], least: float) -> None:
    """Print microseconds and, in parentheses, the ratio to ``least``."""
    columns = list(next(iter(figures.values()), {}))
    print(f"{kind}: CPU per chunk in us (ratio to the cheapest translation); a row is a provider, a column a caller")
    print(" " * 20, *(name.rpartition("openai.")[2].rjust(18) for name in columns))
    for here, row in figures.items():
        cells = (f"{cost:.2f} ({cost / least:.2f})" if least else f"{cost:.2f}" for cost in row.values())
        print(here.ljust(20), *(cell.rjust(18) for cell in cells))
    print()


def main() -> None:
    """Measure what was asked for, and print it."""
    parser = argparse.ArgumentParser(description="CPU time per chunk for every pair of formats.")
    parser.add_argument("--kind", choices=list(PROVIDERS), help="what the chunks hold; all kinds if not given")
    parser.add_argument("--formats", default=",".join(CALLERS), help="comma-separated")
    parser.add_argument("--out", type=Path, help="write the figures there, as JSON")
    options = parser.parse_args()
    kinds: list[Kind] = [options.kind] if options.kind else list(PROVIDERS)
    found: dict[str, dict[str, dict[str, float]]] = {}
    least = 0.0
    for kind in kinds:
        found[kind] = table(kind, options.formats.split(","))
        least = least or cheapest(found[kind])
        print_table(kind, found[kind], least)
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
