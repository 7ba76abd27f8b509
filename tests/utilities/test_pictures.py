from __future__ import annotations

import json

import pytest

from nnunet_ext.utilities.errors import UsageError
from nnunet_ext.utilities.pictures import (
    MAX_BYTES,
    Picture,
    find_picture,
    picture_uri,
    read_pictures,
    write_pictures,
)


def picture(file):
    return Picture(file, "Title", "Caption", "In words")


def test_what_was_written_is_read(tmp_path):
    assert read_pictures(tmp_path) == []
    for name in ("a.png", "b.SVG"):
        (tmp_path / name).write_bytes(b"?")
    pictures = [picture("a.png"), picture("b.SVG")]
    write_pictures(tmp_path, pictures)
    assert read_pictures(tmp_path) == pictures
    assert json.loads((tmp_path / "pictures.json").read_text())[0]["alt"] == "In words"


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("a.png", "data:image/png;base64,AAE="),
        ("a.JPG", "data:image/jpeg;base64,AAE="),
        ("sub/a.svg", "data:image/svg+xml;base64,AAE="),
    ],
)
def test_data_uri(tmp_path, name, uri):
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(b"\x00\x01")
    assert picture_uri(tmp_path, picture(name)) == uri


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../outside.png", "lies outside"),
        ("link.png", "lies outside"),
        ("text.txt", "neither PNG, JPEG nor SVG"),
        ("absent.png", "does not exist"),
        ("large.png", "2.0 MB; at most 2 MB"),
    ],
)
def test_refused(tmp_path, name, message):
    folder = tmp_path / "pictures"
    folder.mkdir()
    (tmp_path / "outside.png").write_bytes(b"?")
    (folder / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "text.txt").write_bytes(b"?")
    (folder / "large.png").write_bytes(bytes(MAX_BYTES + 1))
    with pytest.raises(UsageError, match=message):
        find_picture(folder, picture(name))
    with pytest.raises(UsageError, match=message):
        write_pictures(folder, [picture(name)])
    assert not (folder / "pictures.json").exists()


@pytest.mark.parametrize(
    "content", ["{}", "[1]", '[{"file": "a.png"}]', '[{"file":1,"title":"","caption":"","alt":""}]']
)
def test_another_list(tmp_path, content):
    (tmp_path / "pictures.json").write_text(content)
    with pytest.raises(UsageError, match="must be a list of entries with the texts file, title, caption, alt"):
        read_pictures(tmp_path)
