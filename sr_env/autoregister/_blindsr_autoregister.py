"""Register our environments whenever Gymnasium is imported, so that ``gym.make("BlindSR-v0")`` needs no import of ours.

Gymnasium loaded plugins from the entry-point group ``gymnasium.envs`` until 1.0 removed that. This module takes its
place: it is installed beside the packages with ``blindsr_autoregister.pth``, whose one line imports it when Python
starts. It imports nothing itself and waits for ``import gymnasium``.
"""

import sys


class _GymnasiumWatch:
    """A finder that finds nothing but adds our registration to the end of Gymnasium's import."""

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> object:
        if name != "gymnasium":
            return None
        sys.meta_path.remove(cls)  # type: ignore[arg-type]
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):  # type: ignore[no-untyped-def]  # its type would have to be imported
            execute(module)
            if "sr_env" in sys.modules:  # Gymnasium is imported by sr_env, which registers by itself
                return
            try:
                import sr_env.registration

                sr_env.registration.register_envs()
            except Exception as error:  # a broken install of ours must not break Gymnasium
                import warnings

                warnings.warn(f"BlindSR environments were not registered: {error!r}", RuntimeWarning, stacklevel=2)

        spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if "gymnasium" not in sys.modules:
    sys.meta_path.insert(0, _GymnasiumWatch)  # type: ignore[arg-type]
