"""Calls that nobody translates: files, audio, images, batches and the like. Their bytes pass, with the chain around them.

``paths`` knows where they are asked for, ``request`` is what of one is known, ``codec`` stands where a codec must.
"""
