"""Images and files that a request gives by URL, for providers that take bytes alone.

- ``options``  the section ``media`` of a rule file
- ``inline``   puts what was fetched into a request
- ``around``   puts that around an upstream

The fetching itself, and which addresses it may connect to, stands in ``transport.fetch``.
"""
