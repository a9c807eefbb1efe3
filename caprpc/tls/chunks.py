"""Frames to ciphertext, in pieces of a size that costs least."""

from collections.abc import Iterator

from caprpc.tls.channel import WRITE_CHUNK_BYTES, TlsChannel


def sealed_in_chunks(channel: TlsChannel, frames: list[bytes]) -> Iterator[bytes]:
    """Yield the ciphertext of frames: small ones are joined and large ones cut, to about ``WRITE_CHUNK_BYTES``."""
    batch: list[bytes | memoryview] = []
    size = 0
    for frame in frames:
        if size + len(frame) <= WRITE_CHUNK_BYTES:
            batch.append(frame)
            size += len(frame)
            continue
        # What stands before a large piece goes with its beginning: small records cost as much as full ones.
        view = memoryview(frame)
        start = WRITE_CHUNK_BYTES - size
        batch.append(view[:start])
        yield channel.seal(b"".join(batch))
        while len(view) - start > WRITE_CHUNK_BYTES:
            yield channel.seal(view[start : start + WRITE_CHUNK_BYTES])
            start += WRITE_CHUNK_BYTES
        batch, size = [view[start:]], len(view) - start
    if batch:
        yield channel.seal(batch[0] if len(batch) == 1 else b"".join(batch))
