"""One request on its way: what middlewares receive, replace and pass on, and the record of what was decided about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Final, Protocol

from msgspec import Struct, field
from msgspec.structs import replace

from .codecs.base import Codec, Peek, RequestFacts
from .errors import AuthError, ErrorKind
from .facts import ANONYMOUS, Principal, WireFacts
from .ids import span_id
from .ir.loss import Ledger
from .ir.message import Request
from .ir.words import Words
from .passing.request import Passed
from .pricing.price import Price
from .relay.scope import Scope
from .units import seconds

if TYPE_CHECKING:
    from .redaction import Session
    from .transcripts.transcript import Transcript

_KEY_IN_QUERY: Final = {"gemini": "key", "gemini.passthrough": "key"}
"""The query parameter in which clients of a format may show their key."""


OTHER_KEYS: Final = frozenset({"x-api-key", "api-key", "x-goog-api-key"})
"""Headers beside Authorization that show a key, in lower case."""


def presented_key(headers: Mapping[str, str], in_query: str | None = None) -> str | None:
    """Return the key that a caller shows, wherever its format puts it; None if there is none. Raises AuthError for two.

    ``headers`` have lower-case names; ``in_query`` is what stands in the query where the format has it there.
    """
    if in_query is None and OTHER_KEYS.isdisjoint(headers):  # as nearly all send it
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme == "Bearer":
            return key.strip() or None
    found = in_query or None
    for name in ("authorization", "x-api-key", "api-key", "x-goog-api-key"):
        value = headers.get(name)
        if not value:
            continue
        if name == "authorization":
            scheme, _, value = value.partition(" ")
            if scheme.lower() != "bearer":
                raise AuthError("the Authorization header must be 'Bearer' and the API key")
            value = value.strip()
            if not value:  # as clients without a key send it
                continue
        if found is not None and found != value:
            raise AuthError("two different API keys in one request: send one of them")
        found = value
    return found


class Account(Struct):
    """One credential of an upstream, which a call goes out with in place of the upstream's own. ``id`` is its name in the
    rules; what was held against it before ``reset_at``, in Unix seconds, counts no longer."""

    id: str
    credential: str
    reset_at: float = 0.0

    def __repr__(self) -> str:
        return f"Account({self.id!r})"  # a Struct would show the credential


class Attempt(Struct, omit_defaults=True):
    """One try at an upstream. Times are seconds since the call began; ``format`` is the provider's, if not the caller's.
    ``calls`` is how many requests it took; ``account`` the id of the one it went out with; ``cause`` why there is another try:
    ``retry``, ``rotate``, ``fallback``, ``continue`` or ``hedge``. ``span_id`` is what the provider was told, if it is
    traced. ``cost_usd`` is what it cost, where that is known."""

    upstream: str
    model: str
    started_s: float
    ended_s: float | None = None
    status: int | None = None
    error: ErrorKind | None = None
    request_id: str | None = None
    format: str | None = None
    calls: int = 1
    account: str = ""
    cause: str = ""
    span_id: str = ""
    cost_usd: float | None = None


class Step(Struct, omit_defaults=True):
    """Something that a middleware did, for the trace: ``cache`` ``hit``. Times are seconds since the call began; no secret and
    no word of the conversation stands in ``facts``."""

    middleware: str
    what: str
    started_s: float
    ended_s: float
    facts: Mapping[str, str | int | float | bool] = {}


class Decision(Struct, omit_defaults=True):
    """What was decided about a call, and why: the one record that log, headers, spans and explain are rendered from.

    ``chain`` are the route's middlewares and then the upstream's, as soon as it is known which; where several are tried, the
    last one's. ``chosen`` are the branches that a target took, in order, such as ``smart.select[2] anthropic``.
    """

    request_id: str
    route: str = ""
    chain: tuple[str, ...] = ()
    target: str = ""
    upstream: str = ""
    model: str = ""
    chosen: list[str] = []
    attempts: list[Attempt] = []
    notes: list[str] = []
    cache: str = ""
    """``hit``, ``miss`` or ``bypass``; empty where no cache was asked."""
    rounds: int = 0
    """How often more was asked for after an answer broke off."""
    steps: list[Step] = []
    """What middlewares did, where it is more than passing the call on."""
    cost_usd: float | None = None
    """What all tries together cost; None where prices are not known, of one of them or at all."""
    cost_known: bool | None = None
    """False where a try was made whose cost nobody knows, None where nobody asked."""
    cost_estimated: bool = False
    """Whether something of it is counted by the size of texts, since the provider did not tell."""
    caller: Principal | None = None
    """Who calls, once somebody in the chain has found out: for those who stand before."""


class Aside(Struct):
    """What middlewares of a call tell each other, and nobody shows or writes: it holds words of the conversation.

    ``transcript`` is what is to be written down of its bodies, None where nobody writes them; ``redactions`` are what was
    replaced in the request, outermost first.
    """

    transcript: Transcript | None = None
    redactions: tuple[Session, ...] = ()


class Payer(Protocol):
    """Who pays for the tries that are made below it. Amounts are picodollars; nothing here awaits."""

    def foresee(self, call: Call, price: Price | None, /) -> None:
        """Hear that ``call`` is about to be sent to where ``price`` holds, None if nobody knows one. Raises GatewayError."""
        ...

    def pay(self, cost: int, /) -> None:
        """Hear what a try cost. It may come late, when the answer is over for the caller."""
        ...


class TraceContext(Struct, frozen=True):
    """Where a call stands in a trace, by W3C Trace Context: 32 and 16 hex digits, and ``flags`` (1: sampled). ``state`` is the
    caller's tracestate."""

    trace_id: str
    span_id: str
    flags: int = 1
    state: str = ""

    def enter(self, headers: dict[str, str]) -> str:
        """Return a span of its own for an attempt, and name it to the provider in ``headers``."""
        id = span_id()
        headers["traceparent"] = f"00-{self.trace_id}-{id}-{self.flags:02x}"
        if self.state:
            headers["tracestate"] = self.state
        elif "tracestate" in headers:
            del headers["tracestate"]
        return id


class Call(Struct):
    """A request on its way. Treat it as immutable: ``replace`` and ``with_request`` make the next one.

    ``body`` are the bytes as the caller sent them, or None once a middleware changed the request; ``request`` is the
    decoded value, decoded on first use. ``model`` is what the provider will be asked for: renaming it needs no decoding.
    Header names in ``headers`` are lower case. ``began`` and ``deadline`` are in seconds of the loop's clock,
    ``began_unix`` of the wall's. ``wire`` is what rules see of the request as it came. ``credential`` is the key the
    caller presented; only an upstream with pass-through may look at it. ``counts`` says that it asks for no answer, but for
    how many tokens the request has. ``account`` is the credential to go out with, if not the upstream's own; ``cause`` says
    why it is sent once more, ``trace`` where it stands in a trace. ``passed`` is a request that nobody translates, in the
    place of ``body`` and ``request``. ``payer`` is who pays for what it costs, if somebody keeps a budget;
    ``aside`` is shared by all that are made of one call.
    """

    codec: Codec
    body: bytes | None
    peek: Peek
    facts: RequestFacts
    scope: Scope
    request_id: str
    began: float
    began_unix: float
    model: str
    decision: Decision
    ledger: Ledger
    deadline: float | None = None
    principal: Principal = ANONYMOUS
    credential: str | None = None
    wants_usage: bool = False
    refuse_loss: bool = False
    show_loss: bool = True
    remote: str | None = None
    wire: WireFacts | None = None
    counts: bool = False
    passed: Passed | None = None
    account: Account | None = None
    cause: str = ""
    trace: TraceContext | None = None
    payer: Payer | None = None
    aside: Aside = field(default_factory=Aside)
    _request: Request | None = None

    @property
    def format(self) -> str:
        """The caller's format."""
        return self.codec.format

    @property
    def headers(self) -> Mapping[str, str]:
        """The caller's headers, names in lower case."""
        return self.facts.headers

    @property
    def is_final(self) -> bool:
        """Whether it cannot be sent again: headers went to the caller, or bytes of its request are gone."""
        return self.scope.committed or (self.passed is not None and self.passed.upload.is_spent)

    @property
    def stream(self) -> bool:
        """Whether the caller wants a stream."""
        return self.peek.stream

    @property
    def request(self) -> Request:
        """The decoded request, with the model as the caller wrote it. Raises DecodeError."""
        request = self._request
        if request is None:
            assert self.body is not None
            self._request = request = self.codec.decode_request(self.body, self.facts)
        return request

    @property
    def words(self) -> Words | None:
        """The request, if it is words alone and nobody has changed it; for who would write it in another format."""
        if self.body is None or self._request is not None:
            return None
        if self.peek.words is not None:
            return self.peek.words
        wording = self.codec.wording
        return None if wording is None else wording.read(self.body)

    def attempt(self, upstream: str, headers: dict[str, str] | None = None) -> Attempt:
        """Begin the record of a try at ``upstream``; ``headers`` are told where it stands in a trace."""
        account = "" if self.account is None else self.account.id
        started_s = seconds(monotonic() - self.began)
        id = "" if self.trace is None else self.trace.enter({} if headers is None else headers)
        attempt = Attempt(upstream, self.model, started_s, None, None, None, None, None, 1, account, self.cause, id)
        self.decision.attempts.append(attempt)
        return attempt

    def presented_key(self) -> str | None:
        """Return the key that the caller shows; None if there is none. Raises AuthError for two."""
        if self.facts.query and (name := _KEY_IN_QUERY.get(self.codec.format)) is not None:
            return presented_key(self.facts.headers, self.facts.query.get(name))
        return presented_key(self.facts.headers)

    def __repr__(self) -> str:
        # A Struct would show the credential, the headers and the words of the conversation to whoever logs it.
        return f"Call({self.request_id!r}, {self.format!r}, model={self.model!r}, route={self.decision.route!r})"

    copy: ClassVar[Callable[[Call], Call]] = Struct.__copy__  # type: ignore[attr-defined]  # msgspec's stubs leave it out
    """Returns a copy, for who is about to set something on it: in C, and with no call of Python's."""

    def replace(self, **changes: Any) -> Call:
        """Return a copy with the given attributes set."""
        new: Call = self.copy()
        for name, value in changes.items():
            setattr(new, name, value)
        if "principal" in changes:
            new.decision.caller = new.principal
        return new

    def with_request(self, request: Request) -> Call:
        """Return a copy that carries ``request``; the caller's bytes are no longer what is sent."""
        peek = self.peek
        if request.stream != peek.stream:
            peek = replace(peek, stream=request.stream)
        return self.replace(_request=request, body=None, peek=peek)
