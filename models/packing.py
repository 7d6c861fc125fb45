"""Which texts of a batch share a pass, so that padding does not eat what batching gains.

A padded pass costs about its texts times the longest of them, whatever the real lengths; starting a pass costs about as much as a
few tokens. Texts are therefore sorted by length and a group ends where padding it up to the next length would cost more than a new
pass. On mixed lengths this keeps the padding of a batch to a few per cent, on alike texts it is one pass.
"""

from __future__ import annotations

from collections.abc import Sequence

# What one more pass costs, in tokens: measured on MiniLM-L6 INT8, one thread, as the intercept of pass time over tokens (0.2 to 0.4
# ms) divided by the time per token (65 us).
PASS_OVERHEAD_TOKENS = 5


def near_length_groups(lengths: Sequence[int], overhead: int = PASS_OVERHEAD_TOKENS) -> list[list[int]]:
    """Divide the indices of `lengths` into groups, each to be padded to its longest; `overhead` in tokens."""
    groups: list[list[int]] = []
    longest = 0
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if groups and len(groups[-1]) * (lengths[index] - longest) <= overhead:
            groups[-1].append(index)
        else:
            groups.append([index])
        longest = lengths[index]
    return groups
