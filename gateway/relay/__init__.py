"""The pipe an answer runs through: async at the edges, sync inside.

- ``source``   where items come from: connect, pause, resume, abort; and the sink they go to
- ``stage``    what a middleware does to a running answer
- ``reply``    a source of chunks with stages, the answer as middlewares see it
- ``splice``   one answer made of several, decided at the end of each
- ``rounds``   what the reader of a splice is told: parts numbered on, usage summed
- ``pull``     the two adapters to async code: iterate an answer, or feed one from an async iterator
- ``decoding`` bytes of an exchange into chunks, with the deadlines of a stream
- ``scope``    the owner of all that a call has open, and the one clock that watches it

Push is the only inner form. A provider's bytes go through the stages to the client's socket in the callback that read
them: no task switch, no queue, one write for one read. Failure travels as the end of a stream, ``end(error)``.
"""
