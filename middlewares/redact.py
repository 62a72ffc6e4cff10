"""Keep addresses, numbers and secrets from the provider: replace them in the request, and put them back into the answer.

Where nothing is found the call goes on untouched, its bytes too. It says in the decision record how many of which kind were
found, never what.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct

from ..gateway.call import Call
from ..gateway.chain import Next
from ..gateway.errors import Unsupported
from ..gateway.passing.request import Passed
from ..gateway.redaction import Redactor, Restoring, Session, redact_request
from ..gateway.redaction.json_text import redact_json_bytes
from ..gateway.relay.reply import Reply

Kind = Literal["email", "phone", "card", "iban", "ip", "secret"]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
_OPERATIONS = frozenset({"openai.embeddings", "openai.moderations", "rerank"})


class RedactOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``kinds`` are what is looked for, besides ``words`` (whole, in any case) and ``patterns`` (regular expressions of RE2
    by the name their placeholders get; they need the extra re2). ``allow`` are values that stay; ``@example.com`` keeps all
    addresses there. ``mode`` is what becomes of a value: ``replace`` puts a placeholder such as <EMAIL_1>, ``mask`` stars,
    ``hash`` a keyed digest, ``refuse`` refuses the request. ``restore`` puts values back into the answer; with ``replace``
    alone."""

    kinds: tuple[Kind, ...] = ("email", "phone", "card", "iban", "ip", "secret")
    words: Annotated[tuple[Word, ...], Meta(max_length=10_000)] = ()
    patterns: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    mode: Literal["replace", "mask", "hash", "refuse"] = "replace"
    restore: bool = False

    def __post_init__(self) -> None:
        if self.restore and self.mode != "replace":
            raise ValueError(f"restore: only what was replaced can be restored, and mode is {self.mode}")


class Redact:
    """Looks at each request, and at the answers of those in which it found something."""

    Options: ClassVar[type[Struct]] = RedactOptions

    def __init__(self, options: RedactOptions) -> None:
        self.options = options
        self._redactor = self._made()

    def _made(self, key: bytes | None = None) -> Redactor:
        options = self.options
        return Redactor(
            options.kinds,
            words=options.words,
            patterns=options.patterns,
            allow=options.allow,
            mode=options.mode,
            key=key,
        )

    def carry_over(self, old: Redact, /) -> None:
        """Go on with the key of the digests: a conversation keeps its bytes."""
        self._redactor.key = old._redactor.key

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the answer to the request without what must not leave. Raises CallerError in mode ``refuse``."""
        redactor = self._redactor
        if call.passed is not None:
            return await call_next(self._passed(call, call.passed))
        body = call.body
        if body is not None and not redactor.suspicious(body):
            return await call_next(call)
        if call.format in _OPERATIONS and body is not None:
            return await call_next(self._operation(call, body))
        session = redactor.session(restore=self.options.restore, tenant=call.principal.tenant)
        request = call.request
        redacted = redact_request(request, session)
        if redacted is request:
            return await call_next(call)
        _note(call, session)
        reply = await call_next(call.with_request(redacted))
        if not self.options.restore or not session.values or call.counts:
            return reply
        wanted = request.response_format
        return reply.through(Restoring(session, wanted is not None and wanted.kind != "text"))

    def _operation(self, call: Call, body: bytes) -> Call:
        """Embeddings and the like: texts go in, none come out."""
        session = self._redactor.session(restore=False, tenant=call.principal.tenant)
        new = redact_json_bytes(body, session, "the request")
        if new is body:
            return call
        _note(call, session)
        return call.replace(body=new)

    def _passed(self, call: Call, passed: Passed) -> Call:
        """What nobody translates: JSON that is here whole is looked at; what cannot be looked at does not leave."""
        upload = passed.upload
        if passed.socket is None and upload.reader is None and not upload.head:
            return call
        if passed.socket is not None or upload.reader is not None or not passed.media_type.endswith("json"):
            raise Unsupported(
                "this route redacts, and it cannot look into what is passed on unless it is JSON of at most 64 KB:"
                " ask the operator for a route without redact"
            )
        session = self._redactor.session(restore=False, tenant=call.principal.tenant)
        head = redact_json_bytes(upload.head, session, "the request")
        if head is upload.head:
            return call
        _note(call, session)
        return call.replace(passed=_with_head(passed, head))


def _note(call: Call, session: Session) -> None:
    if said := session.summary():
        call.decision.notes.append(f"redact: {said}")


def _with_head(passed: Passed, head: bytes) -> Passed:
    return Passed(
        passed.method,
        passed.path,
        passed.query,
        passed.upload.with_head(head),
        passed.socket,
        passed.base,
        passed.media_type,
        passed.boundary,
    )
