"""What ``log`` does besides when it writes bodies down."""

from __future__ import annotations

from pathlib import Path

from ..call import Call
from ..errors import GatewayError
from ..redaction import Redactor
from .files import Files
from .transcript import Take, Transcript
from .written import Written


class Bodies:
    """Writes to ``directory``. ``full``: as ``log`` sees them, but for secrets; else as the innermost ``redact`` left them."""

    def __init__(self, full: bool, directory: Path, max_size: int, keep_s: float, max_body: int) -> None:
        self.files = Files(directory, max_size, keep_s)
        self._full = full
        self._max_body = max_body
        self._secrets = Redactor(("secret",), mode="mask")
        self._all = Redactor(mode="mask")

    def begin(self, call: Call) -> tuple[Transcript, Take]:
        """Return a transcript, which the call knows from now on, and its first take."""
        call.aside.transcript = transcript = Transcript(self._max_body)
        return transcript, transcript.take(call.body, None if call.body is not None else call.request)

    def write(self, call: Call, transcript: Transcript, error: GatewayError | None) -> None:
        """Have written what the call was and came to."""
        take: Take | None = transcript.takes[0] if self._full else transcript.innermost
        masks = self._secrets
        if take is None:  # the call met no redact
            take, masks = transcript.takes[0], self._all
        self.files.put(
            Written(
                call.began_unix,
                call.request_id,
                call.decision.route,
                call.decision.upstream,
                call.peek.model,
                "ok" if error is None else error.kind,
                call.codec,
                take,
                masks,
                self._max_body,
            )
        )
