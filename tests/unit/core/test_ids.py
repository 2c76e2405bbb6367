from __future__ import annotations

import hashlib

import pytest

from run_log.core.ids import MAX_DOCUMENT_ID_BYTES, document_id, original_id, uuid7


def test_ids_are_distinct() -> None:
    """Ids made in one burst are all different."""
    assert len({uuid7() for _ in range(2_000)}) == 2_000


@pytest.mark.parametrize(
    ("text", "document"),
    [
        ("plain-id_1", "plain-id_1"),
        ("é€😀", "é€😀"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("__name__", "%5F_name__"),
        ("__id7__", "%5F_id7__"),
        ("__open", "__open"),
        ("a\nb\x00\x7f", "a%0Ab%00%7F"),
        ("x" * MAX_DOCUMENT_ID_BYTES, "x" * MAX_DOCUMENT_ID_BYTES),
    ],
)
def test_document_ids_that_are_stored(text: str, document: str) -> None:
    """These ids are in stored data: they never change."""
    assert document == document_id(text)
    assert text == original_id(document)


def test_a_long_text_keeps_a_readable_beginning() -> None:
    """What does not fit keeps its first thousand bytes and ends in a digest of the whole."""
    one, other = document_id("x" * 5_000 + "1"), document_id("x" * 5_000 + "2")

    assert one != other
    # As it is in stored data.
    assert one == f"{'x' * 1_000}%~{hashlib.sha256(b'x' * 5_000 + b'1').hexdigest()}"
    assert original_id(one) is None


def test_a_digest_never_ends_within_a_character() -> None:
    """The readable beginning of a long multi-byte text is whole characters."""
    document = document_id("a" + "😀" * 1_000)

    assert document.startswith("a" + "😀" * 249 + "%~")
