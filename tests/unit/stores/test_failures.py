"""What of an error's text tells kinds of failures apart, and what only one failure from the next."""

from __future__ import annotations

import pytest

from run_log.stores.failures import masked


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (None, ""),
        ("", ""),
        (" \n\t\n", ""),
        ("\n  ValueError: no amount  \n  File a.py, line 3", "ValueError: no amount"),
        ("KeyError: 'amount'", "KeyError: 'amount'"),
        ("timed out after 30.5 s at 12:03:04", "timed out after # s at #"),
        ("invoice 1,204 of run-17", "invoice # of run-#"),
        ("HTTP 503 from 10.0.0.7:8443", "HTTP # from #"),
        ("no row 0198F0C2-7f3e-7b5a-9d41-3c2b1a0f9e8d", "no row #"),
        ("<Task at 0x7F3A> is gone", "<Task at #> is gone"),
        ("commit 9fceb02d0ae598e95dc970b74767f19372d61af8", "commit #"),
        ("object deadbeef01 and defaced facade", "object # and defaced facade"),
        ("order 01ARZ3NDEKTSV4RRFFQ69G5FAV", "order #"),
        ("internationalization failed", "internationalization failed"),
        ("file_0198f0c2.csv", "file_#f#c#.csv"),
        ("é" * 400, "é" * 299 + "…"),
    ],
)
def test_numbers_and_ids_are_masked(error: str | None, text: str) -> None:
    """The first line that is not empty stays as it is, but for its numbers and ids, and its end."""
    assert text == masked(error)
    assert text == masked(text)
