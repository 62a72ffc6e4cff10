"""What models write into their text instead of into fields: thinking in tags, channels, tool calls; and stop strings.

- ``markers``   strings to look for in a text that comes in pieces
- ``reader``    the text of one part as a grammar reads it: waits at a cut, goes back where an attempt failed
- ``voice``     what a grammar says, as the events of a choice; stop strings end it
- ``stage``     the relay stage: every text of an answer through its grammar
- ``profile``   the option ``text`` of an upstream, and the grammar that it asks for
- ``think``, ``harmony``, ``json_calls``, ``xml_calls``, ``token_calls``, ``pythonic``   the grammars

One machine reads them all: a grammar is a generator that asks the reader for what comes next and yields where the text
ends for now. So a text cut anywhere tells the same, a whole answer is a text in one piece, and what is held back is what
the reader holds. Nothing here awaits or knows a wire format.
"""
