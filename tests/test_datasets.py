import hashlib
import io
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from scfusionttt import datasets
from scfusionttt.data.assemble import as_citeseq
from scfusionttt.datasets import Dataset, File
from scfusionttt.errors import DownloadError, SettingError


class Server(BaseHTTPRequestHandler):
    """Serves `files`; the first response for a file in `breaks` ends after that number of bytes."""

    files: dict[str, bytes] = {}  # noqa: RUF012
    breaks: dict[str, int] = {}  # noqa: RUF012
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self):
        name = self.path.lstrip("/")
        if name not in self.files:
            self.send_error(404)
            return
        requested = self.headers.get("Range", "bytes=0-")
        self.asked.append(requested)
        start = int(requested.removeprefix("bytes=").rstrip("-"))
        body = self.files[name][start:]
        self.send_response(206)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: self.breaks.pop(name, None)])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    monkeypatch.setenv("SCFUSIONTTT_CACHE", str(tmp_path / "cache"))
    Server.files, Server.breaks, Server.asked = {}, {}, []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        Server.url = f"http://127.0.0.1:{http.server_address[1]}"
        yield Server
        http.shutdown()


@pytest.fixture
def register(server, monkeypatch):
    """Register a data set whose files are served locally."""

    def make(name, files, *, checksum=None, **what):
        server.files |= files
        listed = tuple(File(f"{server.url}/{file}", checksum) for file in files)
        dataset = Dataset(title=name, files=listed, licence="none", source="this test", **what)
        monkeypatch.setitem(datasets.DATASETS, name, dataset)

    return make


def h5ad(tmp_path, n=12, g=5):
    AnnData(np.ones((n, g), "float32"), var=pd.DataFrame(index=[f"g{i}" for i in range(g)])).write_h5ad(
        tmp_path / "a.h5ad"
    )
    return (tmp_path / "a.h5ad").read_bytes()


def test_a_file_is_downloaded_once_and_its_checksum_verified(server, register):
    body = b"counts" * 999
    register("toy", {"a.txt": body}, checksum=f"md5:{hashlib.md5(body).hexdigest()}")
    first, second = datasets.fetch("toy"), datasets.fetch("toy")
    assert first == second and first[0].read_bytes() == body
    assert len(server.asked) == 1


def test_an_interrupted_download_is_resumed(server, register):
    body = bytes(range(256)) * 400
    register("toy", {"a.bin": body}, checksum=f"sha256:{hashlib.sha256(body).hexdigest()}")
    server.breaks["a.bin"] = 70_001
    with pytest.raises(DownloadError, match="70001 of 102400 bytes; try again to resume"):
        datasets.fetch("toy")
    assert datasets.fetch("toy")[0].read_bytes() == body
    assert server.asked == ["bytes=0-", "bytes=70001-"]
    assert not list(datasets.cache().rglob("*.part"))


def test_a_file_with_another_checksum_is_refused(register):
    register("toy", {"a.txt": b"something else"}, checksum=f"md5:{'0' * 32}")
    with pytest.raises(DownloadError, match=r"the checksum of .* differs"):
        datasets.fetch("toy")


def test_a_failed_download_names_the_path_for_a_manual_one(server, register):
    register("toy", {"a.txt": b"x"})
    server.files.clear()
    with pytest.raises(
        DownloadError, match=r"cannot download .*a\.txt \(.*\); download it elsewhere and save it as .*a\.txt"
    ):
        datasets.fetch("toy")
    path = datasets.cache() / "toy" / "a.txt"
    path.write_bytes(b"downloaded by hand")
    assert datasets.fetch("toy") == [path]


def test_the_size_is_checked(register, tmp_path):
    body = h5ad(tmp_path)
    register("toy", {"a.h5ad": body}, cells=12, genes=5, proteins=0, read=datasets._read_one)
    assert datasets.load("toy").shape == (12, 5)
    register("toy", {"a.h5ad": body}, cells=13, read=datasets._read_one)
    with pytest.raises(DownloadError, match="toy has 12 cells instead of 13"):
        datasets.load("toy")


def test_proteins_in_a_bare_array_are_named_by_uns_and_a_set_without_any_is_refused(register, tmp_path):
    """As in the published spleen and lymph node file; without its proteins it had passed as complete."""
    cells = AnnData(np.ones((12, 5), "float32"), var=pd.DataFrame(index=[f"g{i}" for i in range(5)]))
    cells.write_h5ad(tmp_path / "rna.h5ad")
    register("spleen", {"rna.h5ad": (tmp_path / "rna.h5ad").read_bytes()}, read=datasets._read_one)
    with pytest.raises(DownloadError, match="spleen is CITE-seq, but no proteins were found"):
        datasets.load("spleen")
    names = ["ADT_CD3_A0182", "ADT_CD4_A0001"]
    cells.obsm["protein_expression"] = np.arange(24).reshape(12, 2)
    cells.uns["protein_names"] = np.array(names, dtype=object)
    cells.write_h5ad(tmp_path / "both.h5ad")
    register("both", {"both.h5ad": (tmp_path / "both.h5ad").read_bytes()}, read=datasets._read_one)
    protein = as_citeseq(datasets.load("both")).protein
    assert protein.var_names.tolist() == names and protein.X[3].tolist() == [6, 7]


def test_a_10x_archive_is_read(register):
    archive = io.BytesIO()
    files = {
        "matrix.mtx": "%%MatrixMarket matrix coordinate integer general\n2 3 3\n1 1 4\n2 2 1\n1 3 2\n",
        "genes.tsv": "ENSG00000198851\tCD3E\nENSG00000177455\tCD19\n",
        "barcodes.tsv": "A-1\nB-1\nC-1\n",
    }
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(f"filtered_gene_bc_matrices/hg19/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    register("toy", {"m.tar.gz": archive.getvalue()}, cells=3, genes=2, proteins=0, read=datasets._read_10x_archive)
    assert datasets.load("toy").X.toarray().tolist() == [[4, 0], [0, 1], [2, 0]]


def test_cord_blood_keeps_the_human_genes_and_every_antibody(register):
    rna = ",c1,c2\nHUMAN_CD3E,1,0\nMOUSE_Cd3e,5,5\nHUMAN_CD19,2,3\n"
    adt = ",c1,c2\nCD3,10,20\n"
    register("toy", {"rna.csv": rna.encode(), "adt.csv": adt.encode()}, cells=2, proteins=1, read=datasets._read_cbmc)
    cells = datasets.load("toy")
    assert cells.var_names.tolist() == ["CD3E", "CD19"]
    assert cells.X.toarray().tolist() == [[1, 2], [0, 3]]
    assert cells.obsm["protein_counts"]["CD3"].tolist() == [10, 20]


def test_files_of_unsupported_formats_are_downloaded(register):
    register("toy", {"a.txt": b"x"})
    with pytest.raises(SettingError, match="its files are in"):
        datasets.load("toy")
    with pytest.raises(SettingError, match="no data set 'pbmc'; choose one of: pbmc5k"):
        datasets.fetch("pbmc")


def test_the_table_lists_the_eight_data_sets_of_the_paper():
    table = datasets.table()
    assert set(table.index) == {"pbmc5k", "pbmc10k", "malt10k", "spl111", "pbmc3k", "cbmc", "ifnb", "bmcite"}
    assert all(url.startswith("https://") for urls in table["urls"] for url in urls)
    assert table[["licence", "source"]].map(bool).all(axis=None)
