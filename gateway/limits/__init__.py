"""How much is left of a limit, and to whom: arithmetic on times that somebody else reads, and a bounded table of subjects."""
