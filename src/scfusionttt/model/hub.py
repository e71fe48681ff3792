"""Model folders on the Hugging Face Hub, by the optional package huggingface_hub."""

import re
from pathlib import Path

from scfusionttt.errors import DownloadError, SettingError, first_line, missing_extra

#: Beginning of an address on the Hub.
HUB = "hf://"
_ADDRESS = re.compile(r"hf://(?P<name>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def local_folder(path: str | Path) -> Path:
    """Return a local folder as it is, and the folder that ``hf://owner/name@revision`` is downloaded to, once.

    Raises
    ------
    SettingError
        The address is not valid, or huggingface_hub is not installed.
    DownloadError
        The Hub cannot be reached, or has no such model.
    """
    if not str(path).startswith(HUB):
        return Path(path)
    address = _ADDRESS.fullmatch(str(path))
    if address is None:
        raise SettingError(f"{path} is not an address on the Hub; write hf://owner/name or hf://owner/name@revision")
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise missing_extra("hub", f"{path} needs huggingface_hub") from error
    try:
        folder = snapshot_download(
            address["name"], revision=address["revision"], allow_patterns=["*.json", "*.csv", "*.md", "*.safetensors"]
        )
    except Exception as error:  # of the network, the Hub, or the name
        raise DownloadError(f"{path}: cannot be downloaded ({first_line(error)})") from error
    return Path(folder)
