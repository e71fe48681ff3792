import sys

import pandas as pd

from scfusionttt.genome import load_genes
from tools import build_gene_tables as tool


def write_facts(path, rows, columns):
    header = ["symbol", "ensembl_gene_id", "chrom", "start", "end", "strand", "biotype", *columns]
    pd.DataFrame(rows, columns=header).to_csv(path, sep="\t", index=False)


def test_release_keeps_main_copies_and_counts_from_one(tmp_path):
    rows = [
        ["AAA", "ENSG1", "1", 10, 20, "+", "x", "OLD", "B1, B2"],
        ["AAA", "ENSG2", "CHR_HSCHR6_MHC", 10, 20, "+", "x", "", ""],
        ["BBB", "ENSG3", "CHR_HSCHR6_MHC", 10, 20, "+", "x", "", ""],
        ["CCC", "ENSG4", "GL000220.1", 10, 20, "+", "x", "", ""],
    ]
    write_facts(tmp_path / tool.SOURCES["GRCh38.93"], rows, ["prev_symbols", "alias_symbols"])
    genes = tool.read_release(tmp_path, "GRCh38.93")
    assert genes["gene_id"].tolist() == ["ENSG1", "ENSG3", "ENSG4"]
    assert genes["start"].tolist() == [11, 11, 11]
    assert genes["alias"].tolist() == ["B1|B2", "", ""]


def test_names_are_written_once_and_dates_left_out(tmp_path):
    write_facts(tmp_path / tool.SOURCES["GRCh38"], [["NEW", "ENSG1", "1", 10, 20, "+", "x"]], [])
    old = [["NEW", "ENSG1", "1", 9, 20, "+", "x", "OLD", ""], ["GONE", "ENSG2", "1", 9, 20, "+", "x", "", "G1"]]
    write_facts(tmp_path / tool.SOURCES["GRCh38.93"], old, ["prev_symbols", "alias_symbols"])
    releases = {name: tool.read_release(tmp_path, name) for name in ("GRCh38", "GRCh38.93")}
    aliases = pd.DataFrame({"alias": ["N1", "1-Mar", "3/1", "OLD", "NEW"], "symbol": ["NEW"] * 4 + ["NEWEST"]})
    tool.add_names(releases, aliases)
    assert releases["GRCh38"][["previous", "alias"]].values.tolist() == [["OLD", "N1|NEWEST"]]
    assert releases["GRCh38.93"][["previous", "alias"]].values.tolist() == [["", ""], ["", "G1"]]


def test_table_from_a_gtf(tmp_path, monkeypatch):
    gtf = tmp_path / "own.gtf"
    lines = [
        f'{chromosome}\te\tgene\t5\t9\t.\t+\t.\tgene_id "{name}";' for chromosome, name in (("X", "B"), ("2", "A"))
    ]
    gtf.write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(sys, "argv", ["build", str(gtf), "--assembly", "own", "--out", str(tmp_path)])
    tool.main()
    assert load_genes(tmp_path / "own.tsv.xz")["symbol"].tolist() == ["A", "B"]
