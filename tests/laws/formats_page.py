"""docs/formats.md, written from what the codecs do: ``python -m tests.laws.formats_page`` prints it.

Each row is a field of one format and where it stands in the other. What becomes of it is read off the ledger; a row that
is neither found where it says nor in the ledger is an error, and so is a page that differs from what this prints. After
these tables, which are of two formats, stands the matrix of all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from headgate.gateway.codecs.base import AnswerContext, RequestFacts, UpstreamFacts
from headgate.gateway.ir.event import Event
from headgate.gateway.ir.loss import Loss

from . import matrix_page
from .common import ANTHROPIC, CODECS, OPENAI, RESPONSES
from .fields import ANSWERS, CALLED, REQUESTS, TEXT, USED, Row, assistant, content, message, says, stops, user

CONTEXT: Final = AnswerContext(request_id="ID", created=1_700_000_000, model="asked-for", stream_usage=True)
_INDEX: Final = re.compile(r"\[\d+\]")


_BASES: Final[dict[str, dict[str, Any]]] = {
    OPENAI: {"model": "m", "messages": [{"role": "user", "content": "hi"}]},
    ANTHROPIC: {"model": "m", "max_tokens": 99, "messages": [{"role": "user", "content": "hi"}]},
}
_ANSWERED: Final[dict[str, dict[str, Any]]] = {
    OPENAI: {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", **message()}
    | {"usage": {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}},
    ANTHROPIC: {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [TEXT]}
    | {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 5, "output_tokens": 3}},
}


class Outcome(NamedTuple):
    """What became of a row: the translated body, and the losses that it brought."""

    row: Row
    body: Any
    losses: tuple[Loss, ...]


def other(format: str) -> str:
    """The other format."""
    return ANTHROPIC if format == OPENAI else OPENAI


def _request(format: str, row: Row) -> dict[str, Any]:
    base, example = _BASES[format], dict(row.example)
    later = example.pop("later", {}).get("messages", [])
    first = example.pop("messages", [])
    body = {**base, **example}
    if first and first[0]["role"] == "system":
        body["messages"] = [*first, *base["messages"]]
    else:
        body["messages"] = [*base["messages"], *later, *first]
    return body


def _encode(format: str, body: dict[str, Any], there: str = "") -> tuple[Any, tuple[Loss, ...]]:
    request = CODECS[format].decode_request(json.dumps(body).encode(), RequestFacts())
    encoded = CODECS[there or other(format)].encode_request(request, UpstreamFacts())
    return json.loads(encoded.body), encoded.losses


def _answer(format: str, body: dict[str, Any], there: str = "") -> tuple[Any, tuple[Loss, ...]]:
    events: Sequence[Event] = CODECS[format].decode_response(json.dumps(body).encode())
    encoded = CODECS[there or other(format)].encode_response(events, CONTEXT)
    return json.loads(encoded.body), encoded.losses


def outcomes(format: str, *, answers: bool) -> Iterator[Outcome]:
    """Yield what becomes of every row of a format."""
    if answers:
        _, usual = _answer(format, _ANSWERED[format])
        for row in ANSWERS[format]:
            body, losses = _answer(format, {**_ANSWERED[format], **row.example})
            yield Outcome(row, body, tuple(loss for loss in losses if loss not in usual or loss.path == row.to))
    else:
        _, usual = _encode(format, _BASES[format])
        for row in REQUESTS[format]:
            body, losses = _encode(format, _request(format, row))
            yield Outcome(row, body, tuple(loss for loss in losses if loss not in usual))


def found(value: Any, path: str) -> bool:
    """Whether anything stands at ``path``."""
    name, _, rest = path.partition(".")
    inner = value.get(name.removesuffix("[]")) if isinstance(value, dict) else None
    if name.endswith("[]"):
        return isinstance(inner, list) and any(found(item, rest) if rest else True for item in inner)
    return inner is not None and (not rest or found(inner, rest))


def minted_always(format: str, *, answers: bool) -> list[Loss]:
    """What is made up for every request or answer that says no more than it must."""
    if answers:
        bare = {name: value for name, value in _ANSWERED[format].items() if name not in ("id", "created", "usage")}
        losses = _answer(format, bare)[1]
    else:
        losses = _encode(format, _BASES[format])[1]
    return [loss for loss in losses if loss.kind == "minted"]


def general(path: str) -> str:
    """A ledger's path without its numbers."""
    return _INDEX.sub("[]", path)


def _table(format: str, *, answers: bool) -> Iterator[str]:
    yield "| field | becomes | in the ledger |"
    yield "|---|---|---|"
    for row, body, losses in outcomes(format, answers=answers):
        if row.to in ("", "-"):
            becomes = "says nothing there" if row.to else "-"
        else:
            if not found(body, row.to):
                raise LookupError(f"{format} {row.field}: nothing stands at {row.to}: {body}")
            becomes = f"`{row.to}`"
        if not row.to and not losses:
            raise LookupError(f"{format} {row.field}: neither carried nor in the ledger: {body}")
        noted = "; ".join(dict.fromkeys(f"**{loss.kind}** {loss.why}" for loss in losses)) or "-"
        yield f"| {row.field} | {becomes} | {noted} |".replace("|| ", "| ")


HEAD: Final = """# What each format can say

A request that goes to a provider of its own format is sent as it came, and so is the answer. Between two formats, this
page says what becomes of every field: of `openai.chat` and `anthropic.messages` field by field, of all seven formats
[feature by feature](#every-feature-every-format). The last column is the loss ledger: **lost** has no place on the other side,
**emulated** stands there in other words, **minted** was demanded there and said by nobody. Nothing in it: carried.

A request's losses are in the log line; those that are *lost* also in the response header `headgate-loss`, and a route
with `loss: refuse` refuses them before anything is sent. An answer's losses are in the log line. Members that no table
here names are kept towards their own format, byte for byte, and are *lost* towards another.

What is minted is made of the request alone: the same call gives the same bytes. No signature, no provider's id and no
usage figure is ever made up: where a thinking block needs a signature and its provider gives none, it is empty, and where
a count must stand that nobody told, it is 0.

This page is written from what the codecs do (`python -m tests.laws.formats_page`), and a test keeps it true.
"""


def page() -> str:
    """Return the page."""
    lines = [HEAD]
    for format in (OPENAI, ANTHROPIC):
        lines += [f"## Requests: `{format}` to `{other(format)}`\n", *_table(format, answers=False), ""]
    for format in (OPENAI, ANTHROPIC):
        lines += [f"## Answers: `{format}` to `{other(format)}`\n", *_table(format, answers=True), ""]
    lines += [
        "## What is minted\n",
        "Where nobody said it, and the format demands it. Of a request, the ledger names the place",
    ]
    lines += [
        "in the words of the caller's format:\n",
        "| in | in the ledger as | what stands there |",
        "|---|---|---|",
    ]
    lines += [*dict.fromkeys(_minted_rows()), ""]
    lines += matrix_page.section()
    return "\n".join(lines) + "\n"


def _minted_rows() -> Iterator[str]:
    for answers in (False, True):
        for format in (OPENAI, ANTHROPIC):
            rows: Iterable[Loss] = [loss for _, _, some in outcomes(format, answers=answers) for loss in some]
            for loss in [*minted_always(format, answers=answers), *rows, *EXTREMES[format, answers]]:
                if loss.kind == "minted":
                    yield _minted_row(other(format), loss, answers=answers)
        for there, loss in _around_responses(answers=answers):
            if loss.kind == "minted":
                yield _minted_row(there, loss, answers=answers)


def _minted_row(there: str, loss: Loss, *, answers: bool) -> str:
    return f"| `{there}` {'answers' if answers else 'requests'} | `{general(loss.path)}` | {loss.why} |"


def _around_responses(*, answers: bool) -> Iterator[tuple[str, Loss]]:
    """Where a translation to or from Responses goes, and what it notes: every row, and what hardly anybody sends."""
    for here in (OPENAI, ANTHROPIC):
        for body in _bodies(here, answers=answers):
            yield from ((RESPONSES, loss) for loss in (_answer if answers else _encode)(here, body, RESPONSES)[1])
        for body in _RESPONSES_ODD[answers]:
            yield from ((here, loss) for loss in (_answer if answers else _encode)(RESPONSES, body, here)[1])


def _bodies(format: str, *, answers: bool) -> Iterator[dict[str, Any]]:
    odd = [Row("", example) for example in ODD[format, answers]]
    for row in (*(ANSWERS if answers else REQUESTS)[format], *odd):
        yield {**_ANSWERED[format], **row.example} if answers else _request(format, row)
    if answers:
        bare = {name: value for name, value in _ANSWERED[format].items() if name not in ("id", "created", "usage")}
        yield bare
        stops = {"choices": [{"index": 0, "message": {"content": "x"}}]} if format == OPENAI else {"stop_reason": None}
        yield {**bare, **stops}
        yield {
            **bare,
            **({} if format == ANTHROPIC else message(tool_calls=[{**CALLED, "function": {"name": "look"}}])),
        }


_CALL: Final[dict[str, Any]] = {"type": "function_call", "call_id": "a b", "name": "look", "arguments": ""}
_RESPONSES_ODD: Final[dict[bool, list[dict[str, Any]]]] = {
    False: [
        {"model": "m", "input": "x", "tools": [{"type": "function", "name": "look"}]},
        {"model": "m", "input": [_CALL, {"type": "function_call_output", "call_id": "a b", "output": "x"}]},
        {
            "model": "m",
            "input": [
                {"type": "additional_tools", "role": "developer", "tools": [{"type": "function", "name": "look"}]},
                {"role": "user", "content": [{"type": "input_file", "file_data": "JVBERi0="}]},
            ],
        },
        {"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "schema": {}}}},
    ],
    True: [
        {"output": [], "status": "completed"},
        {"output": [_CALL, {**_CALL, "call_id": ""}], "status": "completed", "usage": {"input_tokens": 5}},
    ],
}


ODD: Final[dict[tuple[str, bool], list[dict[str, Any]]]] = {
    (OPENAI, False): [
        says("assistant", None, tool_calls=[{**CALLED, "id": "a b"}]),
        user({"type": "file", "file": {"file_data": "JVBERi0="}}),
        {"messages": [{"role": "tool", "tool_call_id": "a b", "content": "x"}]},
        {"functions": [{"name": "look"}]},
    ],
    (ANTHROPIC, False): [
        assistant({"type": "tool_use", "id": "toolu_1", "name": "look"}),
        {"output_format": {"type": "json_schema", "schema": {}}},
        user({"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="}}),
    ],
    (OPENAI, True): [
        stops("tool_calls", tool_calls=[{**CALLED, "id": ""}]),
        {**stops(""), "usage": {"completion_tokens": 3}},
    ],
    (ANTHROPIC, True): [
        {"stop_reason": None, "usage": {"output_tokens": 3}},
        content({**USED, "input": {}, "id": ""}),
    ],
}
"""What hardly anybody sends: calls without an id, answers without a reason, images that say no type."""


def _extremes() -> Iterator[tuple[tuple[str, bool], list[Loss]]]:
    for (format, answers), bodies in ODD.items():
        losses: list[Loss] = []
        for example in bodies:
            if answers:
                losses += _answer(format, {**_ANSWERED[format], **example})[1]
            else:
                losses += _encode(format, _request(format, Row("", example)))[1]
        yield (format, answers), losses


EXTREMES: Final = dict(_extremes())

if __name__ == "__main__":
    print(page(), end="")
