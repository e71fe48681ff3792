"""What is told about the package in several places is the same in all."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
#: Names of packages that conda-forge calls otherwise.
CONDA = {"igraph": "python-igraph", "matplotlib": "matplotlib-base", "torch": "pytorch"}


def read(path):
    return (ROOT / path).read_text(encoding="utf-8")


def requirement(line):
    name, limits = re.fullmatch(r"([\w-]+)\s*(.*)", line).groups()
    return CONDA.get(name, name), limits.replace(" ", "")


def test_the_conda_recipe_asks_for_the_same_packages():
    recipe = read("packaging/conda/recipe.yaml")
    run = recipe.split("  run:\n")[1].split("\n\n")[0]
    listed = dict(requirement(line.strip("- ")) for line in run.splitlines())
    assert listed.pop("python") == PROJECT["requires-python"]
    assert listed == dict(requirement(line) for line in PROJECT["dependencies"])


def test_the_version_is_the_same_everywhere():
    version = PROJECT["version"]
    assert f"\n  version: {version}\n" in read("packaging/conda/recipe.yaml")
    assert f"\nversion: {version}\n" in read("CITATION.cff")
    module = "integrations/nf-core/modules/scfusionttt/annotate"
    assert f'container "scfusionttt:{version}"' in read(f"{module}/main.nf")
    assert f"- scfusionttt=={version}\n" in read(f"{module}/environment.yml")


def test_the_image_has_what_the_build_reads():
    """`docker build` sees only what .dockerignore lets through."""
    allowed = {line[1:] for line in read(".dockerignore").splitlines() if line.startswith("!")}
    copied = {name for line in re.findall(r"^COPY (.+) \S+$", read("Dockerfile"), re.M) for name in line.split()}
    assert copied == allowed
    assert all((ROOT / name).exists() for name in copied)
    assert {"README.md", "hatch_build.py", *PROJECT["license-files"]} <= copied


@pytest.fixture
def absolute():
    pytest.importorskip("hatchling")
    from hatch_build import absolute

    return absolute


def test_links_of_a_released_readme_are_absolute(absolute):
    text = absolute(read("README.md"), "https://host/lab/tool", "v1")
    assert "](https://host/lab/tool/raw/v1/docs/images/pbmc10k_umap.png)" in text
    assert "](https://host/lab/tool/blob/v1/docs/method.md)" in text
    assert not re.findall(r"\]\((?!https?:|#)[^)]*\)", text)
    assert "](https://arxiv.org/abs/2410.13257)" in text


def test_links_of_the_readme_lead_to_files():
    paths = re.findall(r"\]\((?!https?:|#)([^)#]+)", read("README.md"))
    assert len(paths) > 10
    assert [path for path in paths if not (ROOT / path).exists()] == []
