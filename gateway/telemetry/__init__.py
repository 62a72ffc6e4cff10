"""Traces: what is noted of a call while it runs, how spans are made of it later, and how they leave the process."""
