"""What policies let peers do, worked out from the files alone: authority, reachability, differences.

Nothing here decides for a running service; the guard does, and property tests hold both against each other.
Reference: ``docs/reference/policy-tools.md``.
"""
