import gzip
import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

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
        what = {"read": datasets._read_one} | what
        dataset = Dataset(title=name, files=listed, licence="none", source="this test", **what)
        monkeypatch.setitem(datasets.DATASETS, name, dataset)

    return make


def h5ad(tmp_path):
    cells = AnnData(np.ones((12, 5), "float32"), var=pd.DataFrame(index=[f"g{i}" for i in range(5)]))
    cells.write_h5ad(tmp_path / "a.h5ad")
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


def test_a_lost_connection_of_unknown_length_is_reported(register, monkeypatch):
    """Python reports the end of a chunked answer by an error of its own kind, which was a traceback."""

    def lost(*_):
        raise IncompleteRead(b"")

    register("toy", {"a.txt": b"x"})
    monkeypatch.setattr(datasets.shutil, "copyfileobj", lost)
    with pytest.raises(DownloadError, match=r"cannot download .*a\.txt \(IncompleteRead"):
        datasets.fetch("toy")


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


def test_cite_seq_without_proteins_is_refused(register, tmp_path):
    """The published spleen and lymph node file had passed without its proteins, which are a bare array."""
    register("toy", {"a.h5ad": h5ad(tmp_path)}, read=datasets._read_one)
    with pytest.raises(DownloadError, match="toy is CITE-seq, but no proteins were found"):
        datasets.load("toy")


def spleen(tmp_path):
    """Proteins in a bare array, their names in uns, and hashtags in an array of their own."""
    cells = AnnData(
        np.ones((4, 3), "float32"), obs=pd.DataFrame({"cell_types": ["B", "T", "T", "NK"]}, index=[*"abcd"])
    )
    cells.var_names = ["Cd3e", "Cd19", "Cd4"]
    cells.obsm["isotypes_htos"] = np.ones((4, 1), "float32")
    cells.obsm["protein_expression"] = np.arange(8.0).reshape(4, 2)
    cells.uns["protein_names"] = np.array(["ADT_CD3_A0182", "ADT_CD4_A0001"], dtype=object)
    cells.write_h5ad(tmp_path / "spleen.h5ad")
    return [(tmp_path / "spleen.h5ad").read_bytes()]


def tenx(tmp_path):
    """The HDF5 file of Cell Ranger: features by cells, compressed by column."""
    with h5py.File(tmp_path / "tenx.h5", "w") as file:
        matrix = file.create_group("matrix")
        matrix["shape"], matrix["barcodes"] = np.array([5, 4], "int32"), [f"{name}-1" for name in "ACGT"]
        matrix["data"], matrix["indices"] = np.arange(1, 13), np.tile([0, 3, 4], 4)
        matrix["indptr"] = np.arange(0, 13, 3)
        features = matrix.create_group("features")
        features["name"] = ["CD3E", "CD19", "CD4", "CD3_TotalSeqB", "CD4_TotalSeqB"]
        features["id"] = ["ENSG00000198851", "ENSG00000177455", "ENSG00000010610", "CD3", "CD4"]
        features["feature_type"] = ["Gene Expression"] * 3 + ["Antibody Capture"] * 2
        features["genome"] = ["GRCh38"] * 3 + [""] * 2
    return [(tmp_path / "tenx.h5").read_bytes()]


def pbmc3k(tmp_path):
    """A folder of Cell Ranger 1.1 in an archive."""
    return [
        archive(
            ("filtered_gene_bc_matrices/hg19/matrix.mtx", mtx([[4, 0, 2, 0], [0, 1, 0, 0], [0, 0, 0, 3]])),
            ("filtered_gene_bc_matrices/hg19/genes.tsv", "".join(f"{i}\t{n}\n" for i, n in GENES)),
            ("filtered_gene_bc_matrices/hg19/barcodes.tsv", "A-1\nC-1\nG-1\nT-1\n"),
            kind="gz",
        )
    ]


def cbmc(tmp_path):
    """Genes of two species; a head above the names."""
    rna = ",c1,c2,c3,c4\nHUMAN_CD3E,1,0,0,1\nMOUSE_Cd3e,5,5,5,5\nHUMAN_CD19,2,3,0,0\nHUMAN_CD4,1,1,1,1\n"
    return [gzip.compress(text.encode()) for text in (rna, ",c1,c2,c3,c4\nCD3,10,20,1,1\nCD4,1,1,1,1\n")]


def bmcite(tmp_path):
    """Written by R: no head above the names; not all cells have both."""
    rna = "a_A.1\ta_C.1\ta_G.1\tb_T.1\tb_N.1\nCD3E\t1\t0\t0\t1\t9\nCD19\t2\t3\t0\t0\t9\nCD4\t1\t1\t1\t1\t9\n"
    adt = "b_T.1\ta_C.1\ta_G.1\ta_A.1\nCD3\t4\t2\t3\t1\nCD4\t8\t6\t7\t5\n"
    return [gzip.compress(text.encode()) for text in (rna, adt)]


def ifnb(tmp_path):
    """An archive with other samples, too; a barcode of both samples, and types that are not known."""
    files = {"GSM2560245_A.mat.gz": "other", "GSM2560248_barcodes.tsv.gz": "A-1\nC-1\n"}
    files["GSM2560248_2.1.mtx.gz"] = mtx([[1, 0], [0, 2], [0, 0]])
    files["GSM2560249_2.2.mtx.gz"] = mtx([[3, 0], [0, 4], [5, 5]])
    cells = "tsne1\ttsne2\tind\tstim\tcluster\tcell\tmultiplets\n" + "".join(
        f"{name}\t0.1\t2\t107\t{stim}\t3\t{cell}\tsinglet\n"
        for name, stim, cell in (
            ("A-1", "ctrl", "B cells"),
            ("C-1", "ctrl", "NA"),
            ("A-11", "stim", "B cells"),
            ("G-1", "stim", "NK"),
        )
    )
    genes = "".join(f"{identifier}\t{name}\n" for identifier, name in GENES)
    raw = archive(*((name, gzip.compress(text.encode())) for name, text in files.items()))
    return [raw, gzip.compress(genes.encode()), gzip.compress(cells.encode())]


GENES = (("ENSG00000198851", "CD3E"), ("ENSG00000177455", "CD19"), ("ENSG00000010610", "CD4"))


def mtx(rows):
    values = sparse.coo_matrix(np.array(rows))
    head = f"%%MatrixMarket matrix coordinate integer general\n%\n{len(rows)} {len(rows[0])} {values.nnz}\n"
    return head + "".join(f"{i + 1} {j + 1} {v}\n" for i, j, v in zip(values.row, values.col, values.data))


def archive(*files, kind=""):
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode=f"w:{kind}") as tar:
        for name, body in files:
            body = body.encode() if isinstance(body, str) else body
            entry = tarfile.TarInfo(name)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return whole.getvalue()


MAKERS = {"pbmc5k": tenx, "pbmc10k": tenx, "malt10k": tenx, "spl111": spleen, "pbmc3k": pbmc3k, "cbmc": cbmc,
          "ifnb": ifnb, "bmcite": bmcite}  # fmt: skip


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_each_data_set_is_read_with_its_proteins_and_labels(name, server, monkeypatch, tmp_path):
    """From files of four cells, three genes and two proteins in the shape of the published ones."""
    published = datasets.DATASETS[name]
    bodies = dict(zip((file.name for file in published.files), MAKERS[name](tmp_path), strict=True))
    server.files |= bodies
    files = tuple(File(f"{server.url}/{file}") for file in bodies)
    n_proteins = 0 if published.proteins == 0 else 2
    monkeypatch.setitem(datasets.DATASETS, name, replace(published, files=files, cells=4, genes=3, proteins=n_proteins))
    cells = as_citeseq(datasets.load(name))
    assert cells.rna.X.sum() > 0
    if n_proteins:
        assert cells.protein is not None and all("CD" in protein for protein in cells.protein.var_names)
    if name in ("spl111", "ifnb"):
        assert cells.obs["cell_types" if name == "spl111" else "cell"].astype(str).tolist()[0][0] == "B"


def test_cells_of_tables_are_matched_by_name(register, tmp_path):
    rna, adt = bmcite(tmp_path)
    register("toy", {"rna.tsv.gz": rna, "adt.tsv.gz": adt}, cells=4, proteins=2, read=datasets._read_tables)
    cells = datasets.load("toy")
    assert cells.obs_names.tolist() == ["a_A.1", "a_C.1", "a_G.1", "b_T.1"]
    assert cells.X.toarray().tolist() == [[1, 2, 1], [0, 3, 1], [0, 0, 1], [1, 0, 1]]
    assert cells.obsm["protein_counts"]["CD3"].tolist() == [1, 2, 3, 4]


def test_cord_blood_keeps_the_human_genes(register, tmp_path):
    rna, adt = cbmc(tmp_path)
    register("toy", {"rna.csv.gz": rna, "adt.csv.gz": adt}, cells=4, proteins=2, read=datasets._read_cbmc)
    cells = datasets.load("toy")
    assert cells.var_names.tolist() == ["CD3E", "CD19", "CD4"]
    assert cells.X.toarray()[0].tolist() == [1, 2, 1] and cells.obsm["protein_counts"]["CD3"].tolist() == [10, 20, 1, 1]


def test_stimulated_cells_follow_the_controls(register, tmp_path):
    raw, genes, cells = ifnb(tmp_path)
    whole = {"raw.tar": raw, "genes.tsv.gz": genes, "cells.tsv.gz": cells}
    register("toy", whole, cells=4, proteins=0, read=datasets._read_ifnb)
    adata = datasets.load("toy")
    assert adata.obs_names.tolist() == ["ctrl_A", "ctrl_C", "stim_A", "stim_G"]
    assert adata.X.toarray().tolist() == [[1, 0, 0], [0, 2, 0], [3, 0, 5], [0, 4, 5]]
    assert adata.var["gene_ids"].tolist() == [identifier for identifier, _ in GENES]
    assert adata.obs["cell"].isna().tolist() == [False, True, False, False]
    fewer = gzip.compress(b"".join(gzip.decompress(cells).splitlines(keepends=True)[:-1]))
    register("short", whole | {"cells.tsv.gz": fewer}, read=datasets._read_ifnb)
    with pytest.raises(
        DownloadError, match=r"has 4 cells and 3 genes, but cells\.tsv\.gz and genes\.tsv\.gz list 3 and 3"
    ):
        datasets.load("short")


def test_a_name_that_does_not_exist_is_refused():
    with pytest.raises(SettingError, match="no data set 'pbmc'; choose one of: pbmc5k"):
        datasets.fetch("pbmc")


def test_the_table_lists_the_eight_data_sets_of_the_paper():
    table = datasets.table()
    assert set(table.index) == {"pbmc5k", "pbmc10k", "malt10k", "spl111", "pbmc3k", "cbmc", "ifnb", "bmcite"}
    assert all(url.startswith("https://") for urls in table["urls"] for url in urls)
    assert table[["licence", "source"]].map(bool).all(axis=None)
