"""The command line: ``main`` reads arguments and runs commands, ``show`` prints; ``starter.yaml`` is what ``init`` writes."""
