"""Who may call: virtual keys in a file of SQLite's, and tokens that an identity provider signs.

``keys``: what a key looks like; ``database``: where keys are written down; ``book``: the same in memory, kept up to date;
``options``, ``tokens``, ``signers``: tokens, what they claim, and whose signature they need. The calls on their way ask
memory alone: files and providers are looked at beside them.
"""
