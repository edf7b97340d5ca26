"""Taking over a sample's ledger from whoever used it before."""

from __future__ import annotations

from xbat_live.dose import DoseAccount, ExposureRequest
from xbat_live.dose.openings import count_openings_since, counted_elsewhere_s, settle_left_behind


def take_over(account: DoseAccount, request: ExposureRequest, counter_s: float) -> None:
    """Count what happened while nobody reserved, before the first reservation of a process, `request`.

    A reservation that a dead process left is settled with what the shutter's counter, now `counter_s` s, says it has become;
    what the shutter was open beyond that, and what ledgers of other samples do not account for, counts as an opening by hand.
    """
    settle_left_behind(account, counter_s)
    count_openings_since(account, counter_s, request, elsewhere_s=counted_elsewhere_s(account.ledger))
