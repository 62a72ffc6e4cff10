"""Framing: where one frame ends and the next begins, and surgery on JSON bytes. Sans-IO, without knowledge of formats."""
