"""Sphinx configuration; `make docs` builds the pages with warnings as errors."""

import os
import sys
from pathlib import Path

import numpy.typing

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS.parent / "src"), str(DOCS)]
# Notebooks run in separate processes, on one thread, so that their figures do not depend on the machine.
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])
os.environ.setdefault("OMP_NUM_THREADS", "1")
# They also run in separate folders, so the path must be absolute. Without data they simulate.
data = Path(os.environ.pop("SCFUSIONTTT_DATA", "")).absolute()
if (data / "pbmc10k.h5mu").exists():
    os.environ["SCFUSIONTTT_DATA"] = str(data)

# The reference names this type; of the alias it would list the seven types that it stands for.
numpy.typing.ArrayLike = type("ArrayLike", (), {"__module__": "numpy.typing"})

from scfusionttt import __version__  # noqa: E402

project = "scfusionttt"
author = "the scfusionttt authors"
copyright = "2026, the scfusionttt authors"
version = release = __version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "cli_reference",
    "mathml",
    "settings_reference",
]
exclude_patterns = ["_build", "_*.md", "**.ipynb_checkpoints"]
# Pages that are not part of every build (results that have not been measured) may be missing from the contents.
suppress_warnings = ["toc.empty_glob"]

myst_enable_extensions = ["colon_fence", "dollarmath", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
nb_merge_streams = True
nb_output_stderr = "remove"

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
python_use_unqualified_type_names = True
autodoc_default_options = {"members": True}
templates_path = ["_templates"]
# The lists of names of other projects come from the network: only machines that are known to have one read them.
ONLINE = os.environ.get("READTHEDOCS") or os.environ.get("GITHUB_ACTIONS")
intersphinx_mapping = {
    name: (address, None)
    for name, address in {
        "python": "https://docs.python.org/3/",
        "anndata": "https://anndata.readthedocs.io/en/stable/",
        "matplotlib": "https://matplotlib.org/stable/",
        "mudata": "https://mudata.readthedocs.io/en/latest/",
        "numpy": "https://numpy.org/doc/stable/",
        "pandas": "https://pandas.pydata.org/docs/",
        "torch": "https://docs.pytorch.org/docs/stable/",
    }.items()
    if ONLINE
}
napoleon_google_docstring = False
napoleon_use_rtype = False

html_math_renderer = "mathml"
html_logo = "images/logo.svg"
html_favicon = "images/logo.svg"
html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_css_files = ["narrow.css"]
html_title = "scfusionttt"
html_show_sourcelink = False
html_theme_options = {
    "show_navbar_depth": 1,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "navbar_persistent": [],  # the sidebar has the search; a second one would cover it
}
# The address of the repository, which only the builder knows.
repository = os.environ.get("REPOSITORY_URL") or os.environ.get("READTHEDOCS_GIT_CLONE_URL", "").removesuffix(".git")
if repository:
    html_theme_options |= {
        "repository_url": repository,
        "path_to_docs": "docs",
        "use_repository_button": True,
        "use_issues_button": True,
        "use_source_button": True,
    }
copybutton_prompt_text = r"\$ |>>> "
copybutton_prompt_is_regexp = True
