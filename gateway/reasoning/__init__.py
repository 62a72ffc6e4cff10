"""What a provider signed and the caller's format has no room for: kept here, put back on the next turn.

``turn`` is what is kept of an assistant's turn and how it goes back into a message, ``memory`` stands around an adapter and
does both. Nothing is ever made up: what is not found is left out, as it would be without this.
"""
