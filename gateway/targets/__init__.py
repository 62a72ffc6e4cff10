"""What targets do beside trying one upstream after another: a second call beside a late one, copies that nobody waits for.

It knows calls and how they are served, and nothing of rules.
"""
