"""Hook of MkDocs: what a page links to outside of `docs/` becomes the name of that file in the repository.

Read in the repository these links work; the site has only the pages. A file that is not there is a warning, which
`strict` makes an error.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any

_LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>(?:\.\./)+[^)#\s]+)(?:#[^)]*)?\)")
_log = logging.getLogger("mkdocs.site_links")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Return the page with those links replaced."""
    docs = Path(config["docs_dir"])
    folder = docs / posixpath.dirname(page.file.src_uri)

    def name_of(link: re.Match[str]) -> str:
        target = (folder / link["target"]).resolve()
        if target.is_relative_to(docs.resolve()):
            return link[0]
        if not target.exists():
            _log.warning("%s links to %s, which is not there", page.file.src_uri, link["target"])
        path = target.relative_to(docs.resolve().parent).as_posix()
        return link["text"] if path in link["text"] else f"{link['text']} (`{path}`)"

    return _LINK.sub(name_of, markdown)
