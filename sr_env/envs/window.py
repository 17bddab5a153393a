"""The window of render mode "human"."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np

_log = logging.getLogger(__name__)


class Window:
    """Shows pictures in one window, through matplotlib's interactive backend.

    Without a display (or a GUI toolkit that matplotlib can use) nothing is shown, which is said once: an environment
    made on a server must not die of how it would be watched.

    Args:
        title: Title of the window.
    """

    def __init__(self, title: str) -> None:
        import matplotlib
        from matplotlib.backends import BackendFilter, backend_registry

        interactive = {name.lower() for name in backend_registry.list_builtin(BackendFilter.INTERACTIVE)}
        self._visible = matplotlib.get_backend().lower() in interactive
        if not self._visible:
            _log.warning(
                "render_mode 'human' shows nothing: there is no display, or no GUI toolkit that matplotlib can use "
                "(python3-tk or PyQt6); render_mode 'rgb_array' returns the picture"
            )
        self._title = title
        self._image: Any = None

    def show(self, picture: np.ndarray) -> None:
        """Show a picture, uint8 [H, W, 3], replacing the last one."""
        if not self._visible:
            return
        import matplotlib.pyplot as plt

        if self._image is None or self._image.get_array().shape != picture.shape:
            self.close()
            height, width = picture.shape[:2]
            figure = plt.figure(self._title, figsize=(width / 100, height / 100), dpi=100)
            axes = figure.add_axes((0, 0, 1, 1))
            axes.set_axis_off()
            self._image = axes.imshow(picture)
            plt.show(block=False)
        self._image.set_data(picture)
        self._image.figure.canvas.draw_idle()
        self._image.figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window."""
        if self._image is not None:
            import matplotlib.pyplot as plt

            plt.close(self._image.figure)
            self._image = None
