"""Files and folders are replaced whole, or not at all."""

import errno
from pathlib import Path

import pytest

from scfusionttt.errors import OutputError
from scfusionttt.io.atomic import replacing
from support import raises_one_line


def make_folder(path, text):
    with replacing(path, ours=lambda folder: (folder / "ours").exists()) as temporary:
        temporary.mkdir()
        (temporary / "ours").write_text(text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "disk is full"),
        (OSError("200000 requested and 50160 written"), "disk is full"),
        (RuntimeError("Can't decrement id ref count (No space left on device)"), "disk is full"),
        (PermissionError(errno.EACCES, "Permission denied"), "no permission"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)
def test_a_failed_write_leaves_the_earlier_file(tmp_path, error, words):
    path = tmp_path / "z.csv"
    path.write_text("earlier")
    with raises_one_line(OutputError, "z.csv", words, "nothing was changed"), replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_and_leave_the_earlier_file(tmp_path):
    path = tmp_path / "z.csv"
    path.write_text("earlier")
    for error in (KeyboardInterrupt, RuntimeError("a bug")):
        with pytest.raises(type(error) if isinstance(error, Exception) else error), replacing(path) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_files_are_replaced_whole_and_links_stay(tmp_path):
    (tmp_path / "real.csv").write_text("earlier")
    (tmp_path / "link.csv").symlink_to(tmp_path / "real.csv")
    with replacing(tmp_path / "link.csv") as temporary:
        temporary.write_text("new")
        assert (tmp_path / "real.csv").read_text() == "earlier"
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "real.csv").read_text() == "new"


def test_folders_are_replaced_only_where_they_are_ours(tmp_path):
    make_folder(tmp_path / "model", "one")
    make_folder(tmp_path / "model", "two")
    assert (tmp_path / "model" / "ours").read_text() == "two"
    (tmp_path / "empty").mkdir()
    make_folder(tmp_path / "empty", "three")
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("years of work")
    with raises_one_line(OutputError, "thesis", "other content", "another name"):
        make_folder(tmp_path / "thesis", "x")
    (tmp_path / "file").write_text("a file")
    with raises_one_line(OutputError, "file", "was not written"):
        make_folder(tmp_path / "file", "x")
    assert (tmp_path / "file").read_text() == "a file"
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "years of work"
    assert not list(tmp_path.glob(".*"))


def test_a_failed_move_puts_the_earlier_folder_back(tmp_path, monkeypatch):
    make_folder(tmp_path / "model", "one")
    move = Path.replace

    def fail_for_the_new(self, target):
        if self.name == "model" and self.parent != tmp_path:
            raise OSError(errno.EIO, "Input/output error")
        return move(self, target)

    monkeypatch.setattr(Path, "replace", fail_for_the_new)
    with raises_one_line(OutputError, "Input/output error"):
        make_folder(tmp_path / "model", "two")
    assert (tmp_path / "model" / "ours").read_text() == "one"
