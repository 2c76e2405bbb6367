"""Entity tags, and which of them a client's headers name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from run_log.core import Version
from run_log.dashboard.api.tags import is_known, tag_of, versions_of

VERSIONS = st.builds(
    Version,
    st.integers(1, 2**31 - 1),
    st.integers(0, 2**53),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=128),
)
VERSION = Version(1, 7, 'a";,b')
TAG = tag_of(b"{}", VERSION)


@given(st.lists(VERSIONS, min_size=1, max_size=3), st.binary(max_size=5))
def test_a_tag_names_its_version(versions: list[Version], body: bytes) -> None:
    """A tag is one by RFC 9110, whatever the version is, and the version is read from it, in a list too."""
    tags = [tag_of(body, version) for version in versions]

    assert all(tag[0] == tag[-1] == '"' and '"' not in tag[1:-1] and tag.isascii() for tag in tags)
    assert versions == versions_of(", ".join(tags))
    assert all(is_known(", ".join(tags), tag) for tag in tags)


def test_a_tag_follows_what_is_shown() -> None:
    """Another body, and another version, have another tag."""
    tags = {tag_of(b"{}"), tag_of(b"[]"), TAG, tag_of(b"[]", VERSION), tag_of(b"{}", Version(1, 8, "a"))}

    assert 5 == len(tags)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, False),
        ("", False),
        ("*", True),
        (" * ", True),
        (TAG, True),
        (f"W/{TAG}", True),
        (f'"other",W/{TAG} , "x"', True),
        (TAG[1:-1], False),
        (f'"{TAG[1:-2]}"', False),
    ],
)
def test_what_a_client_has(header: str | None, *, expected: bool) -> None:
    """A client has what one of its tags names, weak ones too, or has anything."""
    assert expected == is_known(header, TAG)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("*", None),
        (TAG, [VERSION]),
        (f"W/{TAG}", []),
        ('"1:7:x"', [Version(1, 7, "x")]),
        ("1:7:x", [Version(1, 7, "x")]),
        (f'"nonsense", W/"1:7:x", {TAG}', [VERSION]),
        ("nonsense", []),
        ("", []),
    ],
)
def test_what_has_to_match(header: str | None, expected: list[Version] | None) -> None:
    """What is named are tags of runs and versions, strong ones; nothing and anything name none."""
    assert expected == versions_of(header)
