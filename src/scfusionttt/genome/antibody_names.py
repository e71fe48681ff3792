"""Parse antibody names: remove what vendors, pipelines and R add to the antigen."""

import re

_GREEK = str.maketrans("αβγδεκλ", "abgdekl")
_LETTERS = re.compile("alpha|beta|gamma|delta|epsilon|kappa|lambda|ligand|receptor")
_GAP = r"[\s_.:\-]"

_AROUND = [
    re.compile(r"[-_][ACGT]{10,}$"),  # CITE-seq-Count: CD3-CTCATTGTAACTCCT
    re.compile(r"([|._-])(?:(?!\1).)+\1AHS\d+\1pAbO$"),  # BD Rhapsody: HLA-DR|CD74|AHS0035|pAbO; Seurat writes - for |
    re.compile(rf"(?i)^totalseq™?{_GAP}*[abcd]?\d*{_GAP}+"),
    re.compile(rf"(?i){_GAP}+total(?:seq™?)?{_GAP}*[abcd]?\d*$"),
    re.compile(
        rf"(?i)^(?:hg19|hg38|grch3[78]|mm9|mm10|mm39|grcm3[89])_+|^[abcd]0\d{{3}}{_GAP}+|{_GAP}+[abcd]0\d{{3}}$"
    ),
    re.compile(rf"(?i)^(?:adt|prot|protein|ab|antibody){_GAP}+|{_GAP}+(?:adt|prot|protein|antibody)$"),
    re.compile(rf"(?i)^anti{_GAP}+|^(?:human|mouse|rat(?=/))(?:/(?:human|mouse|rat))*{_GAP}+"),
    re.compile(rf"^(?:Hu|Ms|Rt)+{_GAP}+"),  # TotalSeq cocktails: Hu.CD3_UCHT1, HuMs.CD44
]
_HASHTAG = re.compile(rf"(?i)hash{_GAP}*tag|(?:^|[^a-z])hto(?:[^a-z]|$)|^hash{_GAP}?\d|^cmo\d+|sample{_GAP}?tag")
_CONTROL = re.compile(r"\b(?:iso|ctrl|ctl|control)\b|^iso(?=ig)")
_HOSTS = "mouse|rat|hamster|armenian|syrian|rabbit|goat|arm|ham"
_HOST_WORD = rf"(?:{_HOSTS})+(?:\b|(?=igg))"
_HOST = re.compile(rf"\b{_HOST_WORD}|\b(?:ms?|rt?)(?=igg)")
#: The isotype of an antibody after its antigen and clone: CD4 (RPA-T4) Mouse IgG1, kappa
_OWN_ISOTYPE = re.compile(rf"(?i)^(?:cd ?\d|(?![mr]?ig|{_HOSTS})\w.*\(.*\)\W*{_HOST_WORD})")
_CONTROL_CLONE = re.compile(r"\b(?:mopc ?\d|mpc ?11\b|rtk ?\d{4}|htk ?888)")
_BARE_SUBCLASS = re.compile(r"igg(?:1|2[abc]?|3)(?: ?(?:k|l|kappa|lambda))?")


#: What makes another antigen of the name before it, and is no clone: CD40 Ligand, CD95-L, CD200-R
_PARTNER = re.compile(r"(?i)(?:l|r|ligand|receptor)(?![a-z0-9])")
_BOOKKEEPING = re.compile(r"(?i)(?:unmapped|unmatched|no[ _.-]?match|bad[ _.-]?struct|total[ _.-]?reads)")
#: What only antibodies are called: CD3_TotalSeqB, adt_CD4, A0034-CD3, Hu.CD3_UCHT1, CD3-CTCATTGTAACTCCT,
#: CD4|CD4|AHS0032|pAbO, CD4-CD4-AHS0032-pAbO, anti-human CD3.
_MARKED = re.compile(
    r"[-_][ACGT]{10,}$|[|._-]pAbO$|^(?:Hu|Ms|Rt)+\."
    r"|(?i:total_?seq|[_.-]total[abcd]$|^[abcd]0\d{3}[\s_.-]|[\s_.-][abcd]0\d{3}$"
    r"|^(?:adt|prot|antibody)[_:-]|[_:-](?:adt|prot|antibody)$|^anti[ _-](?:human|mouse))"
)


def is_bookkeeping(name: str) -> bool:
    """Return True for a row that counting tools add, which is no antibody: unmapped, no_match, total_reads."""
    return bool(_BOOKKEEPING.fullmatch(name.strip()))


def is_marked(name: str) -> bool:
    """Return True for a name that only an antibody has, whatever its antigen: CD3_TotalSeqB, or an isotype control."""
    return bool(_MARKED.search(name)) or ("ig" in name.lower() and is_isotype(name))


def is_hashtag(name: str) -> bool:
    """Return True for a sample barcode: Hashtag 1, HTO28_5P, CMO301."""
    return bool(_HASHTAG.search(name))


def is_isotype(name: str) -> bool:
    """Return True for a control antibody; IgM, IgD or IgG Fc on B cells are antigens and are not."""
    words = re.sub(r"[\W_]+", " ", name.lower()).strip()
    if "isotype" in words or _CONTROL_CLONE.search(words):
        return True
    if re.search(r"ig[gmade]", words) and _CONTROL.search(words):
        return True
    if "igg" in words and _HOST.search(words) and not re.search(r"\b(?:anti|fc)\b", words):
        return not _OWN_ISOTYPE.search(antigen(name))
    return bool(_BARE_SUBCLASS.fullmatch(re.sub(r"[\W_]+", " ", antigen(name).lower()).strip()))


def antigen(name: str) -> str:
    """Remove everything but the antigen: ``adt_CD3_TotalSeqB``, ``anti-human CD3`` -> ``CD3``."""
    previous = None
    while name != previous:
        previous = name
        for pattern in _AROUND:
            name = pattern.sub("", name).strip() or name
    return name


def key(name: str) -> str:
    """Normalise case, Greek letters, separators, and ligand and receptor to l and r.

    One separator is kept between digits: CD3.1 is not CD31.
    """
    folded = _LETTERS.sub(lambda letter: letter.group()[0], name.lower().translate(_GREEK))
    folded = re.sub(r"(?<=\d)[^a-z0-9]+(?=\d)", ".", folded)
    return re.sub(r"[^a-z0-9.]|(?<!\d)\.|\.(?!\d)", "", folded)


def given(name: str) -> list[str]:
    """Return the antigens in a name: the whole name, then the text outside and inside brackets."""
    whole = antigen(name)
    inside = [part for bracket in re.findall(r"\(([^)]*)\)", whole) for part in bracket.split(",")]
    return _tidy([whole, re.sub(r"\([^)]*\)", " ", whole), *inside])


def spellings(name: str) -> list[str]:
    """Return the possible antigens, best first: those in the name, without a numeric suffix, and as one word.

    The suffix is that of a repeated name (``CD3.1``); genes have no separators (``ICAM-1`` is ICAM1).
    """
    readings = given(name)
    shorter = (re.sub(rf"{_GAP}\d+$", "", reading) for reading in readings)
    return _tidy([*readings, *shorter, *map(key, readings)])


def heads(name: str) -> list[str]:
    """Return the prefixes of a name that may end with a clone (``CD3_UCHT1``, ``CD3:UCHT1|CD3E``), longest first."""
    whole = antigen(name)
    gaps = re.finditer(r"[\s_.:|/,\-]+", whole)
    return [whole[: gap.start()] for gap in gaps if not _PARTNER.match(whole, gap.end())][::-1]


def _tidy(readings: list[str]) -> list[str]:
    return [reading for reading in dict.fromkeys(reading.strip(" _.-") for reading in readings) if key(reading)]
