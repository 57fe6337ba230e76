"""Links from assets to their code: to the file on a developer's machine, or to the repository that CODE_URL names."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getsourcefile, unwrap
from pathlib import Path
from typing import Any

import dagster as dg

from clickstream_assets.settings import Settings

_ROOT = Path(__file__).parents[2]


def code_link(function: Callable[..., Any], settings: Settings) -> dict[str, dg.CodeReferencesMetadataValue]:
    """Return the metadata by which Dagster's UI shows the code of a function; nothing where there is nothing to open.

    Dagster's own `with_source_code_references` would take the function that wraps all bodies for each of them.
    """
    body = unwrap(function)
    file, line = Path(getsourcefile(body) or ""), body.__code__.co_firstlineno
    link: dg.UrlCodeReference | dg.LocalFileCodeReference
    if settings.code_url:
        path = file.relative_to(_ROOT).as_posix()
        link = dg.UrlCodeReference(url=f"{settings.code_url.rstrip('/')}/{path}#L{line}")
    elif (_ROOT / "pyproject.toml").exists():
        link = dg.LocalFileCodeReference(file_path=str(file), line_number=line)
    else:
        # Installed, as in an image: whoever looks at the UI does not have the file.
        return {}
    return {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[link])}
