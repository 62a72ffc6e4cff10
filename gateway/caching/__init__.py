"""What the cache stands on: the key of a call, an answer as bytes, and one upstream call that several callers share."""
