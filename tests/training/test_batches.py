"""How features are cut into batches."""

from __future__ import annotations

import numpy as np
import pytest

from training.batches import arrange


@pytest.mark.parametrize(("tickets", "batch"), [(1, 1), (7, 3), (9, 3), (10, 8), (40, 1)])
def test_each_batch_has_its_tickets_features_in_both_orders(tickets: int, batch: int) -> None:
    rng = np.random.default_rng(tickets)
    lengths = rng.integers(0, 6, tickets)
    lengths[-1] = 2
    rows = 50
    ids = rng.integers(1, rows, lengths.sum()).astype(np.int32)
    weight = rng.random(rows, np.float32)
    touched, weights, ticket, place, row_ticket, row_place, bounds = arrange(ids, lengths, batch, weight)

    assert np.array_equal(weights, weight[touched])
    owner = np.repeat(np.arange(tickets), lengths)
    for number in range(-(-tickets // batch)):
        row_part, feature_part, ticket_part = (slice(*bounds[part, number : number + 2]) for part in range(3))
        assert (ticket_part.start, ticket_part.stop) == (number * batch, min((number + 1) * batch, tickets))
        mine = owner // batch == number
        expected = sorted(zip(owner[mine] % batch, ids[mine], strict=True))
        unique = touched[row_part]
        assert np.array_equal(unique, np.unique(ids[mine]))
        by_ticket = list(zip(ticket[feature_part], unique[place[feature_part]], strict=True))
        by_row = list(zip(unique[row_place[feature_part]], row_ticket[feature_part], strict=True))
        assert by_ticket == expected
        assert by_row == sorted((row, one) for one, row in expected)
