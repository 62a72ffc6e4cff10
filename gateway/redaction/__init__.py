"""Finds what must not leave, puts something in its place, and puts it back into the answer. Sans-IO; usable by itself.

- ``detectors``    where in a text an address or a number stands
- ``words``        where a user's own words and patterns stand
- ``folding``      texts in their plain spelling, for those who look
- ``prefilter``    whether there may be anything at all, on bytes
- ``redactor``     what is looked for, and what stands in its place: one Session per conversation
- ``json_text``    the same inside the strings of a JSON text
- ``request``      every text of a request that a provider would see
- ``restoring``    the way back, for an answer in any number of pieces
- ``masking``      stars for what a model says by itself
- ``sealing``      the same for a conversation that is to be kept

>>> from headgate.gateway.redaction import Redactor
>>> session = Redactor().session()
>>> session.text("Write to ann@example.com, cc bob@example.org and ann@example.com.")
'Write to <EMAIL_1>, cc <EMAIL_2> and <EMAIL_1>.'
>>> session.text("key=AKIAIOSFODNN7EXAMPLE Authorization: Bearer 0a1b2c3d4e5f6a7b8c9d0e1f")
'key=<SECRET_1> Authorization: Bearer <SECRET_2>'
>>> session.text("sk-proj-0123456789abcdefABCDEF eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl")
'<SECRET_3> <SECRET_4>'
>>> session.restore("I wrote to <EMAIL_2>; who is <EMAIL_9>?")
'I wrote to bob@example.org; who is <EMAIL_9>?'
>>> session.summary()
'3 email, 4 secret'
>>> Redactor(mode="mask").session().text("card 4111 1111 1111 1111, from 192.0.2.7")
'card ***1111, from ***'
>>> mask_secrets("mail ann@corp.example, AKIAIOSFODNN7EXAMPLE")
'mail ann@corp.example, ***'
"""

from ..secret_shapes import mask_secrets
from .masking import Masking
from .redactor import Found, Redactor, Session
from .request import redact_request
from .restoring import Restoring

__all__ = ["Found", "Masking", "Redactor", "Restoring", "Session", "mask_secrets", "redact_request"]
