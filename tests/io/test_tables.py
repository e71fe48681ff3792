import errno

import pandas as pd
import pytest

from scfusionttt.errors import InputFileError, OutputError
from scfusionttt.io.tables import check_file_path, read_map, write_table
from support import raises_one_line


def test_a_table_is_written_to_csv_and_tsv(tmp_path):
    table = pd.DataFrame({"label": ["x", "y"], "probability": [0.5, 1.0]}, index=pd.Index(["a", "b"], name="cell"))
    for name, separator in {"t.csv": ",", "t.tsv": "\t"}.items():
        write_table(tmp_path / name, table)
        pd.testing.assert_frame_equal(pd.read_csv(tmp_path / name, sep=separator, index_col=0), table)


def test_booleans_of_a_table_are_read_as_such(tmp_path):
    """R reads True as text, of which `== TRUE` is never true."""
    table = pd.DataFrame({"CD3": [True, False], "CD4": pd.array([None, True], "boolean")}, index=["a", "b"])
    write_table(tmp_path / "t.csv", table)
    assert (tmp_path / "t.csv").read_text().split() == [",CD3,CD4", "a,TRUE,", "b,FALSE,TRUE"]
    assert pd.read_csv(tmp_path / "t.csv")["CD3"].tolist() == [True, False]


def test_a_folder_without_permission_is_refused(tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.mkdtemp", refuse)
    with raises_one_line(OutputError, "t.csv", "no permission"):
        write_table(tmp_path / "t.csv", pd.DataFrame())


@pytest.mark.parametrize("length", [300, 250])
def test_a_name_that_is_too_long_is_refused_before_the_work(tmp_path, length):
    """250 characters are allowed, but not with the ending of the temporary folder."""
    name = "x" * (length - 4) + ".csv"
    with raises_one_line(OutputError, "cannot be written: File name too long; choose another"):
        check_file_path(tmp_path / name, (".csv",))
    check_file_path(tmp_path / name[-200:], (".csv",))
    assert not list(tmp_path.iterdir())


def test_a_map_has_one_value_for_each_key(tmp_path):
    """Of two values for a key, the last one was taken."""
    path = tmp_path / "labels.csv"
    path.write_text("label,class\nT,CD4\nT,CD4 \nB,B\n")
    assert read_map(path, ("label", "class")) == {"T": "CD4", "B": "B"}
    path.write_text("label,class\nT,CD4\nT,CD8\nB,B\n")
    with pytest.raises(InputFileError, match=r"labels\.csv: keep one class for each label; several: T"):
        read_map(path, ("label", "class"))
