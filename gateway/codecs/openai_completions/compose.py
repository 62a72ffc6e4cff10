"""A request for a provider that speaks the legacy Completions, from the IR, with its losses.

A request that came in this format goes out the same, value by value. One of another format must be a single thing said by
a user, before which instructions may stand; a conversation would need the model's own template, which nobody here knows.
What an upstream wants otherwise is said by ``UpstreamFacts.options``: ``top_k``: true if it takes that; ``max_stop``: how
many stop sequences it takes (4).
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import Raw

from ...ir.loss import Loss, LossKind
from ...ir.message import Media, Message, Opaque, ReasoningOptions, Refusal, Request, Text, ToolResult
from ...wire.members import NULL, encode_json, put_extra
from ..base import UpstreamFacts
from ..ledger import in_the_callers_words, refused, says_something
from .words import FORMAT

SUFFIX_FORMATS: Final = frozenset({FORMAT, "ollama.generate"})
"""Formats whose ``suffix`` is the text after the gap: it has no word in the IR and means the same in both."""

_NO_SETTING: Final = "the legacy Completions have no such setting"


def encode_request(request: Request, facts: UpstreamFacts) -> tuple[bytes, tuple[Loss, ...]]:
    """Return body and losses. Raises CallerError for what the format cannot say at all."""
    writer = _Writer(request, facts)
    body = encode_json(writer.body())
    return body, in_the_callers_words(request, writer.losses) if writer.losses else ()


class _Writer:
    def __init__(self, request: Request, facts: UpstreamFacts) -> None:
        self.request = request
        self.facts = facts
        self.own = request.format == FORMAT
        self.losses: list[Loss] = []

    def body(self) -> dict[str, Any]:
        request = self.request
        value: dict[str, Any] = {"model": request.model}
        prompt = self._own_prompt() if self.own else self._prompt()
        if prompt is not None:
            value["prompt"] = prompt
        self._limits(value)
        self._sampling(value)
        if request.user is not None:
            value["user"] = request.user
        if request.stream:
            value["stream"] = True
        self._stream_options(value)
        extra = request.extra
        for name, raw in () if self.own else extra.items():
            if name == "suffix" and request.format in SUFFIX_FORMATS:
                value[name] = raw
            elif says_something(name, raw):
                self._lose("lost", name, name, "unknown to the legacy Completions")
        if self.own:
            put_extra(value, extra)
        self._note_missing()
        return value

    def _lose(self, kind: LossKind, path: str, what: str, why: str) -> None:
        self.losses.append(Loss(kind, path, what, why))

    # The prompt

    def _own_prompt(self) -> Any:
        messages = self.request.messages
        if not messages:
            return None
        parts = messages[0].parts
        if parts and isinstance(parts[0], Opaque):
            return Raw(parts[0].data)
        text = "".join(part.text for part in parts if isinstance(part, Text))
        return text if messages[0].brief else [text]

    def _prompt(self) -> str:
        texts: list[str] = []
        asked = False
        for number, message in enumerate(self.request.messages):
            path = f"messages[{number}]"
            instructs = message.role in ("system", "developer") and not asked
            if not instructs and (asked or message.role != "user"):
                why = "the legacy Completions take one prompt, and this request is a conversation"
                raise refused(self.request, Loss("lost", path, message.role, why))
            asked = asked or not instructs
            found = self._texts(message, path)
            if instructs and found:
                self._lose("emulated", path, f"{message.role} message", "put before the prompt")
            texts += found
        if not texts:
            raise refused(self.request, Loss("lost", "messages", "", "there is nothing to complete"))
        return "\n\n".join(texts)

    def _texts(self, message: Message, path: str) -> list[str]:
        texts: list[str] = []
        lost: Loss | None = None
        if message.name is not None:
            self._lose("lost", f"{path}.name", "name", "a prompt has none")
        self._foreign(message.extra, path)
        for position, part in enumerate(message.parts):
            place = f"{path}.content[{position}]"
            if isinstance(part, Text):
                texts.append(part.text)
            elif isinstance(part, Refusal):
                self._lose("emulated", place, "refusal", "stands as text")
                texts.append(part.text)
            elif isinstance(part, Media) and part.text is not None and part.data is None:
                self._lose("emulated", place, "text document", "put in as text")
                texts.append(f"{part.name}\n{part.text}" if part.name else part.text)
            else:
                what = part.kind if isinstance(part, (Media, Opaque)) else type(part).__name__
                lost = Loss("lost", place, what, "a prompt is text")
                if isinstance(part, ToolResult):
                    raise refused(self.request, lost)
                self.losses.append(lost)
                continue
            if isinstance(part, (Text, Media)) and part.cache is not None:
                self._lose("lost", f"{place}.cache", "cache mark", "prefixes are cached by themselves")
            for citation in part.citations if isinstance(part, Text) else ():
                self._lose("lost", f"{place}.citations", citation.kind, "a prompt carries no citations")
            self._foreign(part.extra, place)
        if lost is not None and not texts:
            raise refused(self.request, lost)
        if len(texts) > 1:
            self._lose("emulated", f"{path}.content", "text", "one prompt: joined by newlines")
        return ["\n".join(texts)] if texts else []

    def _foreign(self, extra: Any, path: str) -> None:
        for name, raw in extra.items():
            if name != "role" and says_something(name, raw):
                self._lose("lost", f"{path}.{name}", name, "unknown to the legacy Completions")

    # Settings

    def _limits(self, value: dict[str, Any]) -> None:
        most = self.request.max_output_tokens
        if most is None and not self.own:
            most = self.facts.max_output_tokens
            why = f"without it an answer ends after 16 tokens: {most}, by the profile"
            self._lose("minted", "max_output_tokens", "max_tokens", why)
        if most is not None:
            value["max_tokens"] = most

    def _sampling(self, value: dict[str, Any]) -> None:
        request = self.request
        said = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "seed": request.seed,
            "n": request.n,
            "frequency_penalty": request.frequency_penalty,
            "presence_penalty": request.presence_penalty,
            "logit_bias": None if request.logit_bias is None else Raw(request.logit_bias),
        }
        value.update((name, setting) for name, setting in said.items() if setting is not None)
        if request.logprobs:
            value["logprobs"] = request.top_logprobs or 0
        elif request.top_logprobs:
            self._lose("lost", "top_logprobs", "top_logprobs", "log probabilities were not asked for")
        if request.top_k is not None:
            if self.own or self.facts.options.get("top_k"):
                value["top_k"] = request.top_k
            else:
                self._lose("lost", "top_k", "top_k", "unknown to the legacy Completions")
        if request.stop:
            self._stop(value, request.stop)

    def _stop(self, value: dict[str, Any], stop: tuple[str, ...]) -> None:
        if self.own:
            single = len(stop) == 1 and self.request.extra.get("stop") == NULL
            value["stop"] = stop[0] if single else list(stop)
            return
        most = self.facts.options.get("max_stop", 4)
        most = most if isinstance(most, int) else 4
        if len(stop) > most:
            self._lose("lost", f"stop[{most}]", "stop sequences", f"no more than {most} are taken")
        value["stop"] = list(stop[:most])

    def _stream_options(self, value: dict[str, Any]) -> None:
        request = self.request
        asked = True if request.stream and self.facts.stream_usage else request.stream_usage
        if asked is not None and (request.stream or self.own):
            value["stream_options"] = {"include_usage": asked}
        elif self.own and any(name.startswith("stream_options.") for name in request.extra):
            value["stream_options"] = {}

    def _note_missing(self) -> None:
        """Settings that this API does not have; their defaults are no loss."""
        request, choice = self.request, self.request.tool_choice
        missing = {
            "tools": bool(request.tools),
            "tool_choice": choice is not None and choice.mode not in ("none", "auto"),
            "parallel_tool_calls": request.parallel_tool_calls is False,
            "response_format": request.response_format is not None and request.response_format.kind != "text",
            "verbosity": request.verbosity is not None,
            "metadata": bool(request.metadata),
            "service_tier": request.service_tier is not None and request.service_tier != "auto",
            "cache": request.cache is not None,
        }
        for name, said in missing.items():
            if said:
                self._lose("lost", name, name, _NO_SETTING)
        if choice is not None:
            self._foreign(choice.extra, "tool_choice")
        if request.response_format is not None and request.response_format.schema is not None:
            self._lose("lost", "response_format.schema", "schema", _NO_SETTING)
        if request.reasoning is not None:
            self._note_reasoning(request.reasoning)

    def _note_reasoning(self, wanted: ReasoningOptions) -> None:
        said = {
            "mode": wanted.mode,
            "effort": wanted.effort,
            "budget_tokens": wanted.budget_tokens,
            "summary": wanted.summary,
        }
        for name, setting in said.items():
            if setting is not None:
                self._lose("lost", f"reasoning.{name}", name, _NO_SETTING)
        for name, raw in wanted.extra.items():
            if says_something(name, raw):
                self._lose("lost", f"reasoning.{name}", name, _NO_SETTING)
