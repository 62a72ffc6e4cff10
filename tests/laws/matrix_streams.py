"""Whole answers of every format as the streams that its provider would have sent, frame by frame, of the same content.

Written from the API references, not with the codecs: what a stream says is told twice, by hand, so that the two readings
can be compared. Words come in two pieces, as do the arguments of calls.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from .common import ANTHROPIC, COMPLETIONS, GENERATE, OLLAMA, OPENAI, RESPONSES
from .gemini_format import GEMINI

Body = dict[str, Any]


def halves(text: str) -> list[str]:
    """A text in two pieces, or in one where there is only one sign."""
    middle = (len(text) + 1) // 2
    return [piece for piece in (text[:middle], text[middle:]) if piece]


def _data(*frames: Body, end: bytes = b"") -> bytes:
    return b"".join(b"data: " + json.dumps(frame).encode() + b"\n\n" for frame in frames) + end


def _named(frames: Iterator[Body]) -> bytes:
    """Frames whose event is their type, numbered."""
    told = []
    for frame in frames:
        told.append(b"event: %b\ndata: %b\n\n" % (frame["type"].encode(), json.dumps(frame).encode()))
    return b"".join(told)


def _without(body: Body, *names: str) -> Body:
    return {name: value for name, value in body.items() if name not in names}


# -- openai.chat, openai.completions


def _chat(body: Body) -> bytes:
    head = {**_without(body, "choices", "usage"), "object": "chat.completion.chunk"}
    frames: list[Body] = []

    def say(number: int, delta: Body, finish: str | None = None, logprobs: Any = None) -> None:
        frames.append(
            {**head, "choices": [{"index": number, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]}
        )

    for choice in body["choices"]:
        number, message = choice["index"], choice["message"]
        tokens = (choice.get("logprobs") or {}).get("content") or []
        say(number, {"role": "assistant", "content": "", "refusal": None})
        for piece in halves(message.get("reasoning_content") or ""):
            say(number, {"reasoning_content": piece})
        for place, piece in enumerate(halves(message.get("content") or "")):
            told = {"content": [tokens[place]], "refusal": None} if tokens else None
            say(number, {"content": piece}, logprobs=told)
        for piece in halves(message.get("refusal") or ""):
            say(number, {"refusal": piece})
        for place, call in enumerate(message.get("tool_calls") or ()):
            kind = call["type"]
            member = "input" if kind == "custom" else "arguments"
            opened = {**call, "index": place, kind: {**call[kind], member: ""}}
            say(number, {"tool_calls": [opened]})
            for piece in halves(call[kind][member]):
                say(number, {"tool_calls": [{"index": place, kind: {member: piece}}]})
        if message.get("annotations"):
            say(number, {"annotations": message["annotations"]})
        if message.get("audio"):
            audio = message["audio"]
            say(number, {"audio": {"id": audio["id"]}})
            say(number, {"audio": {"transcript": audio["transcript"]}})
            say(number, {"audio": {"data": audio["data"]}})
            say(number, {"audio": {"expires_at": audio["expires_at"]}})
        say(number, {}, choice["finish_reason"])
    frames.append({**head, "choices": [], "usage": body["usage"]})
    return _data(*frames, end=b"data: [DONE]\n\n")


def _completions(body: Body) -> bytes:
    head = _without(body, "choices", "usage")
    frames: list[Body] = []
    for choice in body["choices"]:
        told = choice["logprobs"]
        for place, piece in enumerate(halves(choice["text"])):
            logprobs = None if told is None else {name: value[place : place + 1] for name, value in told.items()}
            said = {"index": choice["index"], "text": piece, "logprobs": logprobs, "finish_reason": None}
            frames.append({**head, "choices": [said]})
        last = {"index": choice["index"], "text": "", "logprobs": None, "finish_reason": choice["finish_reason"]}
        frames.append({**head, "choices": [last]})
    frames.append({**head, "choices": [], "usage": body["usage"]})
    return _data(*frames, end=b"data: [DONE]\n\n")


# -- anthropic.messages


def _messages(body: Body) -> bytes:
    return _named(_messages_frames(body))


def _messages_frames(body: Body) -> Iterator[Body]:
    usage = body["usage"]
    begun = {**_without(usage, "output_tokens_details"), "output_tokens": 1}
    empty = {**body, "content": [], "stop_reason": None, "stop_sequence": None, "usage": begun}
    yield {"type": "message_start", "message": empty}
    yield {"type": "ping"}
    for index, block in enumerate(body["content"]):
        deltas: list[Body] = []
        start = block
        if block["type"] == "text":
            start = {"type": "text", "text": ""}
            deltas = [{"type": "text_delta", "text": piece} for piece in halves(block["text"])]
            cited = block.get("citations") or ()
            deltas += [{"type": "citations_delta", "citation": citation} for citation in cited]
        elif block["type"] == "thinking":
            start = {"type": "thinking", "thinking": "", "signature": ""}
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in halves(block["thinking"])]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] in ("tool_use", "server_tool_use"):
            start = {**block, "input": {}}
            pieces = ["", *halves(json.dumps(block["input"]))]
            deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        yield {"type": "content_block_start", "index": index, "content_block": start}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    stop = {name: body[name] for name in ("stop_reason", "stop_sequence")}
    yield {"type": "message_delta", "delta": stop, "usage": usage}
    yield {"type": "message_stop"}


# -- openai.responses


def _responses(body: Body) -> bytes:
    frames = [{**frame, "sequence_number": number} for number, frame in enumerate(_responses_frames(body))]
    return _named(iter(frames))


def _responses_frames(body: Body) -> Iterator[Body]:
    begun = {**body, "status": "in_progress", "output": [], "usage": None, "incomplete_details": None}
    yield {"type": "response.created", "response": begun}
    yield {"type": "response.in_progress", "response": begun}
    for place, item in enumerate(body["output"]):
        at = {"item_id": item["id"], "output_index": place}
        opened = {**item, "status": "in_progress"} if "status" in item else item
        inner: list[Body] = []
        if item["type"] == "message":
            opened = {**opened, "content": []}
            inner = [
                frame for i, part in enumerate(item["content"]) for frame in _part(part, {**at, "content_index": i})
            ]
        elif item["type"] == "reasoning":
            opened = {**_without(opened, "encrypted_content"), "summary": []}
            inner = [
                frame for i, part in enumerate(item["summary"]) for frame in _summary(part, {**at, "summary_index": i})
            ]
        elif item["type"] in ("function_call", "custom_tool_call"):
            member = "arguments" if item["type"] == "function_call" else "input"
            kind = "function_call_arguments" if member == "arguments" else "custom_tool_call_input"
            opened = {**opened, member: ""}
            inner = [{"type": f"response.{kind}.delta", **at, "delta": piece} for piece in halves(item[member])]
            inner.append({"type": f"response.{kind}.done", **at, member: item[member]})
        elif item["type"] == "web_search_call":
            steps = ("in_progress", "searching", "completed")
            inner = [{"type": f"response.web_search_call.{step}", **at} for step in steps]
        yield {"type": "response.output_item.added", "output_index": place, "item": opened}
        yield from inner
        yield {"type": "response.output_item.done", "output_index": place, "item": item}
    yield {"type": f"response.{body['status']}", "response": body}


def _part(part: Body, at: Body) -> Iterator[Body]:
    word, kind = ("text", "output_text") if part["type"] == "output_text" else ("refusal", "refusal")
    empty: Body = {"type": kind, word: "", **({"annotations": []} if word == "text" else {})}
    yield {"type": "response.content_part.added", **at, "part": empty}
    tokens = part.get("logprobs") or []
    for place, piece in enumerate(halves(part[word])):
        logprobs = {"logprobs": tokens[place : place + 1]} if word == "text" else {}
        yield {"type": f"response.{kind}.delta", **at, "delta": piece, **logprobs}
    for place, annotation in enumerate(part.get("annotations") or ()):
        told = {"annotation_index": place, "annotation": annotation}
        yield {"type": "response.output_text.annotation.added", **at, **told}
    logprobs = {"logprobs": tokens} if word == "text" else {}
    yield {"type": f"response.{kind}.done", **at, word: part[word], **logprobs}
    yield {"type": "response.content_part.done", **at, "part": part}


def _summary(part: Body, at: Body) -> Iterator[Body]:
    yield {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}}
    for piece in halves(part["text"]):
        yield {"type": "response.reasoning_summary_text.delta", **at, "delta": piece}
    yield {"type": "response.reasoning_summary_text.done", **at, "text": part["text"]}
    yield {"type": "response.reasoning_summary_part.done", **at, "part": part}


# -- gemini


def _gemini(body: Body) -> bytes:
    head = _without(body, "candidates", "usageMetadata")
    frames: list[Body] = []
    for candidate in body.get("candidates", ()):
        number = candidate["index"]
        tokens = candidate.get("logprobsResult")
        for part in candidate["content"]["parts"]:
            for place, piece in enumerate(_pieces(part)):
                said: Body = {"content": {"role": "model", "parts": [piece]}, "index": number}
                if tokens is not None:
                    chosen = {"chosenCandidates": tokens["chosenCandidates"][place : place + 1]}
                    said["logprobsResult"] = {**chosen, "topCandidates": tokens["topCandidates"][place : place + 1]}
                frames.append({"candidates": [said], **head})
        frames.append({"candidates": [_without(candidate, "content", "logprobsResult")], **head})
    if not frames:
        frames.append(dict(head))
    frames[-1]["usageMetadata"] = body["usageMetadata"]
    return _data(*frames)


def _pieces(part: Body) -> list[Body]:
    """The parts of two frames, where a part may be cut: one with a signature comes whole."""
    if "text" not in part or "thoughtSignature" in part:
        return [part]
    return [{**part, "text": piece} for piece in halves(part["text"])]


# -- ollama


_LAST: Final[tuple[str, ...]] = ("done_reason", "total_duration", "prompt_eval_count", "eval_count")


def _lines(frames: list[Body]) -> bytes:
    return b"".join(json.dumps(frame).encode() + b"\n" for frame in frames)


def _ollama(body: Body) -> bytes:
    message, tokens = body["message"], body.get("logprobs")
    head = _without(body, "message", "logprobs", *_LAST)
    frames: list[Body] = []
    for name in ("thinking", "content"):
        for place, piece in enumerate(halves(message.get(name, ""))):
            told = {"logprobs": tokens[place : place + 1]} if tokens and name == "content" else {}
            said = {"role": "assistant", "content": "", name: piece}
            frames.append({**head, "message": said, "done": False, **told})
    for call in message.get("tool_calls", ()):
        calling: Body = {"role": "assistant", "content": "", "tool_calls": [call]}
        frames.append({**head, "message": calling, "done": False})
    last = {name: body[name] for name in _LAST if name in body}
    frames.append({**head, "message": {"role": "assistant", "content": ""}, "done": True, **last})
    return _lines(frames)


def _generate(body: Body) -> bytes:
    tokens = body.get("logprobs")
    head = _without(body, "response", "thinking", "logprobs", "context", *_LAST)
    frames = [{**head, "response": "", "thinking": it, "done": False} for it in halves(body.get("thinking", ""))]
    for place, piece in enumerate(halves(body["response"])):
        told = {"logprobs": tokens[place : place + 1]} if tokens else {}
        frames.append({**head, "response": piece, "done": False, **told})
    last = {name: body[name] for name in (*_LAST, "context") if name in body}
    frames.append({**head, "response": "", "done": True, **last})
    return _lines(frames)


_STREAMS: Final[dict[str, Callable[[Body], bytes]]] = {
    OPENAI: _chat,
    RESPONSES: _responses,
    ANTHROPIC: _messages,
    GEMINI: _gemini,
    OLLAMA: _ollama,
    GENERATE: _generate,
    COMPLETIONS: _completions,
}


def stream_of(format: str, body: Body) -> bytes:
    """The stream of a provider of ``format`` whose whole answer would be ``body``."""
    return _STREAMS[format](body)
