"""Stores: where answers and what belongs to them are kept for a later call, bounded in time, number and bytes.

``base`` is what every store is; ``memory`` keeps in the process, ``sqlite`` in a file. Which there are, and by which names,
the rule file says.
"""
