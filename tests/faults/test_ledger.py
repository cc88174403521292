import pytest

from tests.faults import ledger


@pytest.mark.slow
async def test_no_transfer_is_lost_doubled_or_half_done_while_everything_breaks():
    books = await ledger.run(seconds=20)  # for longer: python -m tests.faults.ledger --seconds 300

    assert books.wrong == []
    assert books.snapshots > 10
    assert len(books.faults) > 5
    assert sum(number for (_, outcome), number in books.outcomes().items() if outcome == ledger.STORED) > 100
