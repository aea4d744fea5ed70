"""The features of a tenant's tickets, batch by batch, in the orders in which a fit reads and writes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def in_order(
    ids: NDArray[np.int32], splits: NDArray[np.int64], kept: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """The kept features, ticket by ticket in `order`, and how many each ticket has."""
    bounds = np.searchsorted(kept, splits)
    lengths = np.diff(bounds)[order]
    ends = np.cumsum(lengths)
    flat = np.repeat(bounds[order] - (ends - lengths), lengths) + np.arange(lengths.sum())
    return ids[kept[flat]], lengths


def arrange(
    ids: NDArray[np.int32], lengths: NDArray[np.int64], batch: int, weight: NDArray[np.float32]
) -> tuple[NDArray[Any], ...]:
    """Some batches' features as `descend` takes them.

    Args:
        ids: of the features, ticket by ticket.
        lengths: how many features each ticket has.
        batch: tickets in each batch but the last.
        weight: of each row of the table.

    Returns:
        The rows that each batch touches, and their weights; each feature's ticket in its batch, and its row's place among
        those that the batch touches, in the order of tickets; the same in the order of rows; and where batches begin and
        end among touched rows, features and tickets, int32 [3, batches + 1].
    """
    tickets, batches = len(lengths), -(-len(lengths) // batch)
    ticket = np.repeat(np.arange(tickets, dtype=np.int64), lengths)
    number, ticket_in_batch = np.divmod(np.arange(tickets, dtype=np.int64), batch)
    # Sorted as numbers, since sorting by several keys takes many times as long; parts of two's powers come apart by shifts.
    ticket_bits, row_bits = (batch - 1).bit_length(), (len(weight) - 1).bit_length()
    keys = (np.repeat(number << row_bits, lengths) | ids) << ticket_bits
    keys |= np.repeat(ticket_in_batch, lengths)
    keys.sort()
    row_ticket = keys & ((1 << ticket_bits) - 1)
    keys >>= ticket_bits
    first = np.ones(len(keys), bool)
    first[1:] = keys[1:] != keys[:-1]
    place = np.cumsum(first) - 1
    fresh = keys[first]
    touched = (fresh & ((1 << row_bits) - 1)).astype(np.int32)
    edges = np.arange(batches + 1)
    row_bounds = np.searchsorted(fresh >> row_bits, edges)
    of_batch = keys >> row_bits
    row_place = place - row_bounds[of_batch]
    ticket_bounds = np.minimum(edges * batch, tickets)
    feature_bounds = np.concatenate([[0], np.cumsum(lengths)])[ticket_bounds]
    place_bits = len(keys).bit_length()
    back = (((of_batch * batch + row_ticket) << place_bits) | row_place).astype(np.int64)
    back.sort()
    back &= (1 << place_bits) - 1
    return (
        touched,
        weight[touched],
        ticket_in_batch[ticket].astype(np.int32),
        back.astype(np.int32),
        row_ticket.astype(np.int32),
        row_place.astype(np.int32),
        np.stack([row_bounds, feature_bounds, ticket_bounds]).astype(np.int32),
    )
