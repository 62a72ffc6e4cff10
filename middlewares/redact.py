"""Keep addresses, numbers and secrets from the provider: replace them in the request, and put them back into the answer.

Where nothing is found the call goes on untouched, its bytes too. It says in the decision record how many of which kind were
found, never what.
"""

from __future__ import annotations

from time import monotonic
from typing import Annotated, ClassVar, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from ..gateway.call import Call, Step
from ..gateway.chain import Next
from ..gateway.doors import OPERATIONS
from ..gateway.errors import Unsupported
from ..gateway.passing.request import Passed
from ..gateway.redaction import Masking, Redactor, Restoring, Session, redact_request
from ..gateway.redaction.json_text import redact_json_bytes
from ..gateway.relay.reply import Reply
from ..gateway.units import Secret, seconds

Kind = Literal["email", "phone", "card", "iban", "ip", "secret"]
Word = Annotated[str, Meta(min_length=1, max_length=200)]
_REFUSED = (
    "this route redacts, and it cannot look into what is passed on unless it is JSON of at most 64 KB in UTF-8:"
    " ask the operator for a route without redact"
)


class RedactOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """``kinds`` are what is looked for, besides ``words`` (whole, in any case) and ``patterns`` (regular expressions of RE2
    by the name their placeholders get; they need the extra re2). ``allow`` are values that stay; ``@example.com`` keeps all
    addresses there. ``mode`` is what becomes of a value: ``replace`` puts a placeholder such as <EMAIL_1>, ``mask`` stars,
    ``hash`` a digest, keyed with ``key`` or with one that is made anew at each start, ``refuse`` refuses the request.
    ``restore`` puts values back into the answer; with ``replace`` alone. ``answers``: ``mask`` puts stars in the place of
    what the model itself says of these kinds. ``unreadable`` is what becomes of calls that are passed on and cannot be
    looked into."""

    kinds: tuple[Kind, ...] = ("email", "phone", "card", "iban", "ip", "secret")
    words: Annotated[tuple[Word, ...], Meta(max_length=10_000)] = ()
    patterns: dict[str, str] = {}
    allow: tuple[str, ...] = ()
    mode: Literal["replace", "mask", "hash", "refuse"] = "replace"
    restore: bool = False
    key: Secret | None = None
    answers: Literal["keep", "mask"] = "keep"
    unreadable: Literal["refuse", "pass"] = "refuse"

    def __post_init__(self) -> None:
        if self.restore and self.mode != "replace":
            raise ValueError(f"restore: only what was replaced can be restored, and mode is {self.mode}")
        if self.key is not None and self.mode != "hash":
            raise ValueError(f"key: it is for the digests of mode hash, and mode is {self.mode}")


class Redact:
    """Looks at each request, and at the answers of those in which it found something."""

    Options: ClassVar[type[Struct]] = RedactOptions
    hides_content = True

    def __init__(self, options: RedactOptions) -> None:
        self.options = options
        secret = None if options.key is None else options.key.read()
        self._redactor = Redactor(
            options.kinds,
            words=options.words,
            patterns=options.patterns,
            allow=options.allow,
            mode=options.mode,
            key=None if secret is None else secret.encode(),
        )
        self._masks = options.answers == "mask"

    def carry_over(self, old: Redact, /) -> None:
        """Go on with the key of the digests that was made up: a conversation keeps its bytes."""
        if self.options.key is None and old.options.key is None:
            self._redactor.key = old._redactor.key

    async def __call__(self, call: Call, call_next: Next, /) -> Reply:
        """Return the answer to the request without what must not leave. Raises CallerError in mode ``refuse``."""
        redactor = self._redactor
        if call.passed is not None:
            return await call_next(self._passed(call, call.passed))
        session: Session | None = None
        outgoing = call
        body = call.body
        if body is None or redactor.suspicious(body):
            session = redactor.session(restore=self.options.restore, tenant=call.principal.tenant)
            outgoing = self._replaced(call, body, session)
            if outgoing is call:
                session = None
        transcript = call.aside.transcript
        if session is None and transcript is None and not self._masks:
            return await call_next(call)
        take = (
            None
            if transcript is None
            else transcript.take(outgoing.body, None if outgoing.body is not None else outgoing.request)
        )
        reply = await call_next(outgoing)
        tells = not call.counts and call.format not in OPERATIONS
        if self._masks and tells:
            reply.through(Masking(redactor))
        if take is not None:  # what the caller may not see is not for the log either
            reply.through(take)
        if not tells:
            return reply
        if session is None or not self.options.restore or not session.values:
            return reply
        wanted = call.request.response_format
        return reply.through(Restoring(session, wanted is not None and wanted.kind != "text"))

    def _replaced(self, call: Call, body: bytes | None, session: Session) -> Call:
        """Return the call without what was found; itself if that is nothing."""
        began = monotonic() - call.began
        if call.format in OPERATIONS and body is not None:  # texts go in, none come out
            new = redact_json_bytes(body, session, "the request")
            outgoing = call if new is body else call.replace(body=new)
        else:
            request = call.request
            redacted = redact_request(request, session)
            outgoing = call if redacted is request else call.with_request(redacted)
        if outgoing is not call:
            _note(call, session, began)
        return outgoing

    def _passed(self, call: Call, passed: Passed) -> Call:
        """What nobody translates: JSON that is here whole is looked at; what cannot be looked at does not leave."""
        upload = passed.upload
        if passed.socket is None and upload.reader is None and not upload.head:
            return call
        is_whole = passed.socket is None and upload.reader is None
        # Another encoding of characters, or of the whole, would show nothing of what it holds.
        if not is_whole or not passed.media_type.endswith("json") or not _is_utf8(upload.head):
            if self.options.unreadable == "pass":
                call.decision.notes.append("redact: passed on, and not looked into")
                return call
            raise Unsupported(_REFUSED)
        began = monotonic() - call.began
        session = self._redactor.session(restore=False, tenant=call.principal.tenant)
        head = redact_json_bytes(upload.head, session, "the request")
        if head is upload.head:
            return call
        _note(call, session, began)
        return call.replace(passed=replace(passed, upload=upload.with_head(head)))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in data  # as UTF-16 and UTF-32 have it


def _note(call: Call, session: Session, began: float) -> None:
    decision = call.decision
    call.aside.redactions += (session,)
    if said := session.summary():
        decision.notes.append(f"redact: {said}")
        ended = monotonic() - call.began
        decision.steps.append(Step("redact", "found", seconds(began), seconds(ended), dict(session.counts)))
