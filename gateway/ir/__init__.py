"""The values every format is read into and written from: messages, events, losses, and the fold between them.

Sans-IO and immutable. Nothing here knows a wire format; what a format says that has no word here travels in ``extra``.
"""
