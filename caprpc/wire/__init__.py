"""Bytes to messages to values, and back: frames, the envelope, and the value types.

Nothing here does I/O, keeps a clock, or runs code of an application or of a peer.
"""
