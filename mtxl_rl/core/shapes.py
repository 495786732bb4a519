"""Names of the jaxtyping annotations, so that the backbone imports with torch and mogrifier only.

The annotations are documentation at run time and checks under pytest (through jaxtyping's import
hook); without jaxtyping they are never evaluated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int64
else:
    try:
        from jaxtyping import Bool, Float, Int64
    except ImportError:
        Bool = Float = Int64 = None

__all__ = ["Bool", "Float", "Int64"]
