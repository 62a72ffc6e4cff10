"""The aiohttp side: standalone and mounted, by public API.

- ``gateway``    the Gateway: rules, clock, and the way of one call through them; needs no socket
- ``intake``     what a request may look like before any rule sees it: limits, gzip, ids, where the caller is
- ``edge``       an answer on its way to one client's socket
- ``handlers``   the HTTP surface: calls, models, health
- ``standalone`` a process of its own: sockets, TLS, workers, signals, drain
- ``loops``      which event loop that process runs on
"""
