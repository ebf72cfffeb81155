"""Show types by their names in the source: ``ArrayLike``, not the eight types it unites."""

import re

from docutils import nodes
from jax.typing import ArrayLike, DTypeLike
from optax import Params, Schedule
from sphinx.application import Sphinx
from sphinx.util.typing import stringify_annotation

from gradstable._src.core.units import Units

# The longest first: some contain others.
_ALIASES = {"ArrayTree": Params, "Schedule": Schedule, "Units": Units}
_ALIASES |= {"ArrayLike": ArrayLike, "DTypeLike": DTypeLike}
_SHORT = {stringify_annotation(alias, "smart"): name for name, alias in _ALIASES.items()}
_SHORT |= {"jax.jaxlib._jax.Array": "jax.Array", "optax._src.base.": "optax."}
# A type that no page documents, such as Tree, which is returned with its own type.
_PRIVATE = re.compile(r"~?gradstable\._src\.core\.\w+\.(?=(Tree|Mask)\b)")


def shorten(app: Sphinx, domain: str, *_: str | nodes.Element) -> None:
    """Replace the types that autodoc recorded, before it writes them to the page."""
    if domain != "py":
        return
    for types in app.env.current_document.autodoc_annotations.values():
        for argument, text in types.items():
            for long, short in _SHORT.items():
                text = text.replace(long, short)
            types[argument] = _PRIVATE.sub("", text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register before autodoc's own handler of this event."""
    app.connect("object-description-transform", shorten, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
