"""The codec ``gemini``: Google's generateContent API, as a provider speaks it and as a caller does.

The model and the method are in the path (``paths``). ``request`` reads a caller's request and ``compose`` writes one for a
provider, with ``parts`` and ``render`` for what contents are made of and ``schema`` for Google's own schemas. ``reader`` turns
the frames of an answer into events, for ``response`` (whole answers) and ``stream``; ``answer`` writes them, for ``response``
and ``encoder``. ``usage``, ``logprobs`` and ``errors`` do both ways of what they are named after.
"""

from .codec import ARRAY_CODEC, CODEC

__all__ = ["ARRAY_CODEC", "CODEC"]
