"""The middleware ceiling: how much of a model a caller may ask for, and what is not passed on at all.

It changes the request alone, in whatever format it came; a request that needs no change goes on byte for byte.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from headgate import Call, Next, Reply
from headgate.gateway.doors import OPERATIONS
from headgate.gateway.errors import CallerError
from msgspec import Meta, Struct
from msgspec.structs import replace

Field = Literal["temperature", "top_p", "top_k", "stop", "seed", "user", "metadata", "logit_bias", "service_tier"]


class CeilingOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand below ceiling in the rules; at least one key."""

    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    """The longest answer. A caller who does not say how long gets this too."""
    max_choices: Annotated[int, Meta(ge=1)] | None = None
    """How many answers to one question."""
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    """In place of whatever the caller says."""
    without: tuple[Field, ...] = ()
    """What is left out of the request."""
    above: Literal["lower", "refuse"] = "lower"
    """What becomes of a request that asks for more."""

    def __post_init__(self) -> None:
        if (self.max_output_tokens, self.max_choices, self.temperature, self.without) == (None, None, None, ()):
            raise ValueError("it has nothing to do: give it a key")
        if self.temperature is not None and "temperature" in self.without:
            raise ValueError("temperature is set, and left out: which?")


class Ceiling:
    """Lowers or refuses what asks for too much."""

    Options: ClassVar[type[Struct]] = CeilingOptions

    def __init__(self, options: CeilingOptions) -> None:
        self.options = options
        self._caps = {
            name: cap
            for name, cap in (("max_output_tokens", options.max_output_tokens), ("n", options.max_choices))
            if cap is not None
        }
        self._fixed: dict[str, Any] = {name: () if name == "stop" else None for name in options.without}
        if options.temperature is not None:
            self._fixed["temperature"] = options.temperature

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Pass the call on, changed if need be. Raises CallerError for too much, if that is refused."""
        # Embeddings and the like have no such fields, what is passed on byte for byte is nobody's to read, and who asks how
        # many tokens a request has gets no answer that could be too long.
        if call.passed is not None or call.counts or call.format in OPERATIONS:
            return await call_next(call)
        request = call.request
        changes = {name: value for name, value in self._fixed.items() if getattr(request, name) != value}
        for name, cap in self._caps.items():
            asked = getattr(request, name)
            if asked is not None and asked > cap and self.options.above == "refuse":
                raise CallerError(f"{name} is {asked}, and at most {cap} here", param=name)
            if (asked is None and name == "max_output_tokens") or (asked is not None and asked > cap):
                changes[name] = cap
        if not changes:
            return await call_next(call)
        call.decision.notes.append(f"ceiling: {', '.join(sorted(changes))}")
        return await call_next(call.with_request(replace(request, **changes)))
