"""Metadata that depends on where the repository is: links of the README, and the project's pages on PyPI."""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

#: ``![text](path)`` or ``[text](path)`` with a path inside the repository.
LINK = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")
PAPER = "https://arxiv.org/abs/2410.13257"


class CustomMetadataHook(MetadataHookInterface):
    """Read the address of the repository from ``REPOSITORY_URL``, as the release workflow sets it.

    PyPI shows the README without the files beside it, so its links have to be absolute there. Without an address they
    stay as they are.
    """

    def update(self, metadata: dict[str, Any]) -> None:
        """Add the fields ``readme`` and ``urls``."""
        repository, ref = os.environ.get("REPOSITORY_URL", ""), os.environ.get("REPOSITORY_REF", "main")
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["urls"] = {"Paper": PAPER}
        if repository:
            text = absolute(text, repository, ref)
            metadata["urls"] |= {
                "Source": repository,
                "Issues": f"{repository}/issues",
                "Changelog": f"{repository}/blob/{ref}/CHANGELOG.md",
                "Documentation": os.environ.get("DOCUMENTATION_URL") or f"{repository}/tree/{ref}/docs",
            }
        metadata["readme"] = {"content-type": "text/markdown", "text": text}


def absolute(text: str, repository: str, ref: str) -> str:
    """Return Markdown with links to files of the repository replaced by their addresses at a branch or tag."""

    def address(link: re.Match[str]) -> str:
        image, label, path = link.groups()
        return f"{image}{label}({repository}/{'raw' if image else 'blob'}/{ref}/{path})"

    return LINK.sub(address, text)
