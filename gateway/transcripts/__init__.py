"""What was asked and answered, for a log of bodies.

- ``bodies``      what ``log`` has to do with it
- ``transcript``  what a provider was sent and said, as the innermost ``redact`` left it
- ``written``     both as they are written down: masked, media by their length, bounded
- ``files``       files of lines that are bounded together, and go after a while
"""
