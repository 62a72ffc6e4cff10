"""The state of openai.responses, kept by the gateway for any upstream: ``previous_response_id``, and responses to read again.

``kept`` is what is kept of an answer, ``request`` what a request says of state and how it is written out in full,
``recorder`` hears a stream's last event, ``pages`` writes what is kept the way the API shows it, ``errors`` its errors.
Sans-IO but for the store; who calls, and by which route, is the server's business.
"""
