"""What the gateway stands in for where a provider lacks it, upstream by upstream, and always told in the ledger.

- ``options``     what an upstream may say under ``emulate``
- ``around``      puts the emulations that are on around an upstream
- ``structured``  structured output, by a tool or by instruction, checked, with one repair turn
- ``asking``      how a request asks for it, and how the answer is read
- ``checks``      JSON against a caller's schema, in bounded time
- ``fan_out``     ``n`` choices by as many calls
- ``merge``       several answers as the choices of one
- ``streams``     a provider that only streams, or never does
- ``running``     usage while a stream runs

Each is a plain function or stage of its own, so that a middleware may use one without the rest.
"""
