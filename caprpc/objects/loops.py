"""The event loop on which a call is awaited."""

import asyncio


def loop_of_caller(member: str) -> asyncio.AbstractEventLoop:
    """Return the loop that runs in this thread; ask before the call is sent, or it runs and nobody gets its answer.

    Raises:
        RuntimeError: There is none: the reference was given to an ``async def`` method, and is used by a thread.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "this thread has no event loop on which the call could be awaited: "
            f"write caprpc.submit(ref.{member or 'method'}, ...).result()"
        ) from None
