"""What limits are made of: arithmetic on times and money that somebody else reads, a bounded table of who took what, and the
tickets of the calls that are under way."""
