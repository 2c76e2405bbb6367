from __future__ import annotations

import re
import uuid

from hypothesis import example, given
from hypothesis import strategies as st

from run_log.core.ids import MAX_DOCUMENT_ID_BYTES, MAX_ID_BYTES, bounded_id, document_id, original_id, uuid7

from .core_strategies import examples

_RESERVED = re.compile(r"\.|\.\.|__.*__", re.DOTALL)

nasty = st.text(st.sampled_from("%/._~25EF\x00\x1f\x7f\né€😀a"), min_size=1, max_size=12)


def _repeat(text: str, times: int, end: str) -> str:
    return text * times + end


long = st.builds(
    _repeat,
    st.text(min_size=1, max_size=6),
    st.integers(min_value=200, max_value=900),
    st.sampled_from(["", "__", "/", "%~"]),
)
texts = st.text(min_size=1, max_size=20) | nasty | nasty.map(lambda text: f"__{text}__") | long


@examples(150)
@given(texts, texts)
@example("%2E", ".")
@example("/", "%2F")
@example("__x__", "%5F_x__")
@example("%5F_x__", "%255F_x__")
@example("x" * 1_501, "x" * 1_502)
def test_different_texts_have_different_document_ids(one: str, other: str) -> None:
    """Two texts share a document id only if they are the same text."""
    assert (one == other) == (document_id(one) == document_id(other))


@examples(150)
@given(texts)
@example("__")
@example("x" * 1_499 + "/")
@example("😀" * 376)
def test_every_document_id_is_legal(text: str) -> None:
    """A document id is not empty, not reserved, without slash or control character, and short enough."""
    document = document_id(text)

    assert 1 <= len(document.encode()) <= MAX_DOCUMENT_ID_BYTES
    assert not _RESERVED.fullmatch(document)
    assert not re.search(r"[/\x00-\x1f\x7f]", document)


@examples(150)
@given(texts)
def test_a_document_id_gives_the_text_back_unless_it_is_a_digest(text: str) -> None:
    """The original text is read back from a document id; only what was too long is a digest, hence None."""
    document = document_id(text)
    digested = "%~" in document

    assert (None if digested else text) == original_id(document)
    assert not digested or len(text.encode()) * 3 > MAX_DOCUMENT_ID_BYTES


any_length = st.builds(
    _repeat,
    st.text(st.characters(exclude_categories=()), min_size=1, max_size=6),
    st.integers(min_value=1, max_value=1_100),
    st.text(st.characters(exclude_categories=()), max_size=2),
)


@examples(150)
@given(any_length, any_length)
@example("x" * 1_024, "x" * 1_025)
@example("x" * 50_000, "x" * 49_999 + "y")
@example("\U0001f600" * 256, "\U0001f600" * 257)
@example("\ud800" * 400, "\udfff" * 400)
@example(bounded_id("x" * 2_000), "x" * 2_001)
def test_an_id_of_any_length_has_one_within_the_bound(one: str, other: str) -> None:
    """A text within the bound is its own id; a longer one has one that is, always the same, and its alone."""
    first, second = bounded_id(one), bounded_id(other)

    assert max(len(first.encode(errors="surrogatepass")), len(second.encode(errors="surrogatepass"))) <= 1_024
    assert (one == other) == (first == second)
    assert (first == one) == (len(one.encode(errors="surrogatepass")) <= MAX_ID_BYTES)
    assert (first, second) == (bounded_id(first), bounded_id(second))


def test_the_id_of_a_longer_text_is_readable_and_never_another_one() -> None:
    """Whoever derives the id in another language or version derives this one: a beginning and a SHA-256."""
    assert bounded_id("invoice/" + "é" * 1_000) == (
        "invoice/" + "é" * 124 + "~sha256-877074837a191cefae93ed3f8dec02ed68e94047c18d296bada81e783ae45e47"
    )
    assert bounded_id("x" * 1_024) == "x" * 1_024


@examples(100)
@given(
    st.integers(min_value=0, max_value=2**48 - 1),
    st.integers(min_value=0, max_value=2**74 - 1),
)
def test_an_event_id_is_a_uuid_of_version_seven(moment: int, bits: int) -> None:
    """The version and variant bits are RFC 9562's, the millisecond leads, and all the chance is kept."""
    value = uuid.UUID(uuid7(now_ms=lambda: moment, randbits=lambda _: bits))
    number = value.int

    assert value.version == 7
    assert value.variant == uuid.RFC_4122
    assert moment == number >> 80
    assert bits == ((number >> 64) & 0xFFF) << 62 | number & (2**62 - 1)


@examples(100)
@given(
    st.tuples(st.integers(min_value=0, max_value=2**48 - 1), st.integers(min_value=0, max_value=2**74 - 1)),
    st.tuples(st.integers(min_value=0, max_value=2**48 - 1), st.integers(min_value=0, max_value=2**74 - 1)),
)
def test_event_ids_sort_by_their_millisecond(one: tuple[int, int], other: tuple[int, int]) -> None:
    """Ids sort as text in the order of their milliseconds, then of their chance."""
    first = uuid7(now_ms=lambda: one[0], randbits=lambda _: one[1])
    second = uuid7(now_ms=lambda: other[0], randbits=lambda _: other[1])

    assert (one < other) == (first < second)
