"""Starts the server: load and certify a bundle, choose an engine, listen."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import uvicorn

from thaw.bundle import certified_bundle
from thaw.bundle_path import bundle_of
from thaw.cache import cache_folder
from thaw.classifier.classifier import Classifier
from thaw.device import choose_device, keep_freed_memory
from thaw.errors import ServeError
from thaw.golden import golden_of
from thaw.hub import is_hub_name
from thaw.prediction.predict import read_pixels
from thaw.prediction.predictor import Predictor, choose_predictor, reference_predictor
from thaw.serve.access import AccessPolicy
from thaw.serve.app import create_app
from thaw.serve.limits import Limits
from thaw.serve.metrics import Baseline
from thaw.serve.service import Service
from thaw.web.listening import Address, bounded_server, listen, url_of

TOKEN_VARIABLE = "THAW_TOKEN"
MIN_TOKEN_LENGTH = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_EXPECTED_IMAGES = 10_000
"""The number of images for which the choice of the engine is optimised."""


def serve(
    path: Path,
    address: Address,
    limits: Limits,
    token_file: Path | None = None,
    name: str | None = None,
) -> None:
    """Serve a bundle, or the bundle of a run, until interrupted; accepted requests are completed.

    Args:
        path: Folder of the run or bundle, or `hub:OWNER/NAME`.
        address: Where to listen.
        limits: Bounds on memory and waiting time.
        token_file: File with the token that clients must present.
        name: Name of the model; by default that of the run, the folder or the repository.

    Raises:
        ServeError: The address is not available, or is open to other machines without a token.
        BundleError: The bundle does not reproduce its golden images.
    """
    access = access_policy_for(address, token_file, os.environ)
    with listen(address) as listening:
        service = service_of(path, limits, name)
        print(f"{service.name}: {url_of(address, listening)} (Ctrl+C to stop)", flush=True)
        with suppress(KeyboardInterrupt):
            server_for(service, access).run(sockets=[listening])


def access_policy_for(address: Address, token_file: Path | None, environment: Mapping[str, str]) -> AccessPolicy:
    """Who may send requests; raises `ServeError` if a token is required but missing, or malformed."""
    token, source = environment.get(TOKEN_VARIABLE), TOKEN_VARIABLE
    if token_file:
        source = str(token_file)
        try:
            token = token_file.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise ServeError(f"{source}: cannot be read as a token file") from error
    if token is None:
        if not address.is_loopback:
            raise ServeError(
                f"--host {address.host} is open to other machines and needs a token: use --token-file FILE, or set "
                f"{TOKEN_VARIABLE} in the environment"
            )
        return AccessPolicy(hosts=(*AccessPolicy.hosts, address.host_in_url))
    token = token.strip()
    if len(token) < MIN_TOKEN_LENGTH or not _TOKEN.fullmatch(token):
        raise ServeError(
            f"{source}: a token has at least {MIN_TOKEN_LENGTH} letters, digits and ._~+/=-; create one with "
            "`openssl rand -hex 24`"
        )
    return AccessPolicy(token)


def service_of(path: Path, limits: Limits, name: str | None = None) -> Service:
    """The classifier of a run or bundle, checked on its golden images, as a service."""
    folder = bundle_of(path)
    classifier = certified_bundle(folder)
    config = json.loads((folder / "config.json").read_bytes())
    chosen = name or _name_of(path, folder)
    if not _NAME.fullmatch(chosen):
        raise ServeError(f"{chosen}: the name of a model has only letters, digits and ._-; give another with --name")
    predictor = fastest_predictor(classifier, folder)
    return Service(classifier, chosen, limits, predictor.outputs, baseline=Baseline.read(config))


def _name_of(path: Path, bundle: Path) -> str:
    """The name of a repository on the hub, a run, or the folder of a bundle."""
    if is_hub_name(str(path)):
        return path.name
    whole = bundle.resolve()
    return whole.parent.name if whole.name == "model" else whole.name


def fastest_predictor(classifier: Classifier, folder: Path) -> Predictor:
    """The predictor on the fastest engine that agrees with the reference on the golden images; prints the reason."""
    keep_freed_memory()
    read = [read_pixels(classifier, file) for file in golden_of(folder)]
    size = classifier.backbone.facts.pixels.size
    pixels = [image for image in read if isinstance(image, np.ndarray)] or [np.zeros((size, size, 3), np.uint8)]
    reference = reference_predictor(classifier, choose_device("auto").device)
    chosen = choose_predictor(reference, "auto", np.stack(pixels), _EXPECTED_IMAGES, cache_folder())
    print(f"engine {chosen.predictor.engine}: {chosen.reason}", file=sys.stderr)
    return chosen.predictor


def server_for(service: Service, access: AccessPolicy) -> uvicorn.Server:
    """A server that is ready to run."""
    return bounded_server(create_app(service, access), service.limits, service.metrics)
