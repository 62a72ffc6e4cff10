"""Accounts: several credentials of one provider, in pools that calls take turns with.

- ``options``: what a rule file says of a pool; ``resets``: when a provider says that an account is back
- ``state``: what is known of an account; ``record``: the same as others find it in a store
- ``affinity``: which calls belong to one session; ``pool``: which account a call goes out with, and what its end says of it
- ``keeper``: from the state to the store and back, behind the calls
"""
