"""Deprecated alias of `xtune.messages`, kept for one release: map functions of users import it."""

from ..messages import *  # noqa: F403
