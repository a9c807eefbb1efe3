"""How a value that does not fit its declaration is reported: locally with its type, to a peer without."""

from caprpc.errors import CapRPCError


class Mismatch(TypeError):
    """A value does not fit its declared type; the signature that called turns this into its own error.

    Attributes:
        expected: The declared type as text, such as ``list[int]``.
        received: Name of the type that came, never the value.
        hint: What to do about it, empty if the two names say it all.
    """

    def __init__(self, expected: str, received: str, hint: str = "") -> None:
        self.expected = expected
        self.received = received
        self.hint = hint
        text = f"expected {expected}, got {received}"
        super().__init__(f"{text}; {hint}" if hint else text)


class ArgumentError(CapRPCError, ValueError):
    """A peer's arguments do not fit the declared signature; the method was not run.

    The message names the parameter and the expected type and nothing of what came, so that it can travel.

    Attributes:
        parameter: Name of the declared parameter, empty if the arguments as a whole do not fit.
        expected: What the declaration asks for, as text.
    """

    def __init__(self, parameter: str, expected: str) -> None:
        self.parameter = parameter
        self.expected = expected
        super().__init__(f"parameter {parameter!r}: expected {expected}" if parameter else f"expected {expected}")


class ResultError(CapRPCError, TypeError):
    """A peer's answer does not fit the declared result type; no part of it reached the caller.

    Attributes:
        expected: The declared result type as text.
    """

    def __init__(self, member: str, expected: str, mismatch: Mismatch | None = None) -> None:
        self.expected = expected
        found = "" if mismatch is None else f": expected {mismatch.expected}, got {mismatch.received}"
        super().__init__(f"the peer's answer to {member} is not the declared {expected}{found}")


def type_name(value: object) -> str:
    """Return the name of a value's type, safe to show: no code of the value runs."""
    return type.__dict__["__name__"].__get__(type(value), type)  # type: ignore[no-any-return]
