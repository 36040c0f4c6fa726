"""The service on more than one machine, as a Ray Serve application (the extra ``cluster``).

    serve run melisma.web.cluster:application replicas=4 cores=2 models=melisma-44k

Every replica is a whole service (:func:`melisma.web.create_app`) with its own models, workers and queue; Ray places
them on the machines of the cluster and spreads requests over them. With MELISMA_TOKEN set where this runs, every
request must carry the token; without it the replicas answer on this machine's own names only.
"""

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from melisma.config import suggest
from melisma.errors import MelismaError
from melisma.web.settings import TOKEN_VARIABLE, Settings, named_models

if TYPE_CHECKING:
    from ray.serve import Application

_ARGUMENTS = ("replicas", "cores", "models", "queue", "gpus")


def application(arguments: Mapping[str, str]) -> "Application":
    """What ``serve run`` and ``ray.serve.run`` start.

    Args:
        arguments: ``replicas`` (1), ``cores`` of each (1), ``models`` with commas between them (the shipped ones),
            ``queue`` of each (16), ``gpus`` of each (0, fractions allowed).

    Raises:
        MelismaError: Ray is not installed, or an argument that is unknown or no number.
    """
    try:
        from ray import serve
    except ImportError as error:
        raise MelismaError("the cluster needs Ray Serve; install its extra: pip install 'melisma[cluster]'") from error
    for name in arguments:
        if name not in _ARGUMENTS:
            raise MelismaError(f"unknown argument {name!r}; known: {', '.join(_ARGUMENTS)}{suggest(name, _ARGUMENTS)}")
    cores, gpus = _number(arguments, "cores", 1), _number(arguments, "gpus", 0)
    settings = settings_of_replica(arguments, int(cores), gpus > 0)

    def build() -> Any:
        from melisma.web import create_app

        return create_app(settings)

    deployment = serve.deployment(
        name="melisma",
        num_replicas=int(_number(arguments, "replicas", 1)),
        max_ongoing_requests=settings.workers + settings.queue + settings.streams,
        ray_actor_options={"num_cpus": cores, "num_gpus": gpus},
        health_check_timeout_s=60,
    )
    return deployment(serve.ingress(build)()).bind()


def settings_of_replica(arguments: Mapping[str, str], cores: int, gpu: bool) -> Settings:
    """Settings of every replica."""
    token = os.environ.get(TOKEN_VARIABLE) or None
    models = arguments["models"].split(",") if "models" in arguments else list(Settings().models)
    return Settings(
        host="127.0.0.1" if token is None else "0.0.0.0",
        token=token,
        workers=cores,
        queue=int(_number(arguments, "queue", 16)),
        device="cuda" if gpu else "cpu",
        models=named_models(models),
    )


def _number(arguments: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(arguments.get(name, default))
    except ValueError as error:
        raise MelismaError(f"{name}={arguments[name]} is not a number; write {name}={default:g}") from error
    if value < 0 or (value < 1 and name != "gpus"):
        raise MelismaError(f"{name}={value:g} is too small; write 1 or more")
    return value
