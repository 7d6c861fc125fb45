from __future__ import annotations

import pytest

from drift.scripts import foreign_share


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("My card was charged 3 times!", 0),
        ("¿Cómo está la factura?", 0),
        ("счёт", 1),
        ("pay счёт", 4 / 7),
        ("कब", 1),
        ("123 — 4", 0),
        ("", 0),
    ],
)
def test_letters_of_other_scripts_are_foreign_whatever_their_accents(text: str, share: float) -> None:
    assert foreign_share(text) == pytest.approx(share)


def test_the_usual_scripts_may_be_others() -> None:
    assert foreign_share("счёт", ["CYRILLIC"]) == 0
    assert foreign_share("card", ["CYRILLIC"]) == 1
