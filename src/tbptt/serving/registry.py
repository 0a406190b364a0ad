"""MLflow's model registry: networks under a name, with versions and aliases."""

import json
from contextlib import nullcontext
from typing import Any, NamedTuple

from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

from tbptt import compat
from tbptt.config.schema import TrackingConfig
from tbptt.runs.model import model_in
from tbptt.runs.tracking import Store
from tbptt.serving.source import Source, wrong_alias, wrong_name
from tbptt.system.environment import uri_of
from tbptt.system.stores import OF_MLFLOW, foreign, sqlite_path, without_password


class Registered(NamedTuple):
    """A version of a registered model.

    Attributes:
        version: its number.
        is_new: False if the network was this version of the name already.
    """

    version: str
    is_new: bool


def register(source: Source, name: str, alias: str | None, tracking_uri: str | None) -> Registered:
    """Register a network as the next version of a name. If it is a version of it already, no other is made, and only
    the alias moves.

    The version is of a model in MLflow that belongs to the network's run. If the run has none yet, as it is older, the
    model is made.

    Args:
        name: the registered model; it is made if it does not exist.
        alias: a name for this version, such as ``champion``, which another version of the name had until now; None
            gives it none.
        tracking_uri: the store of runs and registered models; the default is that of :func:`tbptt.serving.source.find`.

    Raises:
        ValueError: MLflow does not take the name or the alias; one line.
        ConnectionError: the store does not answer.
    """
    if problem := wrong_name(name):
        raise ValueError(f"name: {problem}")
    if alias is not None and (problem := wrong_alias(alias)):
        raise ValueError(f"alias: {problem}")
    uri = uri_of(tracking_uri)
    path = sqlite_path(uri)
    if path is not None and path.exists() and (problem := foreign(path, OF_MLFLOW)):
        raise ValueError(f"tracking.uri: {problem}")
    store = Store(TrackingConfig(uri=uri, experiment="tbptt"))
    try:
        _make_name(store, name)
        run = store.run(source.run_id) if source.run_id else None
        run = None if run is None or run.is_deleted else run
        model = model_in(store, source.content, run.experiment if run else store.experiment, run.id if run else None)
        tags = run.tags() if run else {}
        before = _version_of(store, model, name)
        if (version := before) is None:
            # A registry in a database looks for the model in the store of MLflow's own tracking URI.
            with compat.tracking_uri_is(store.uri) if store.path else nullcontext():
                made = store.client.create_model_version(
                    name,
                    f"models:/{model}",
                    run.id if run else None,
                    tags={key: tags[key] for key in ("study.name", "trial.number") if key in tags},
                    description=description(source, tags),
                    model_id=model,
                )
            version = str(made.version)
            _show_with_model(store, model, name, version)
        if alias is not None:
            store.client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        reason = without_password(" ".join(str(error.message).split()))
        raise ValueError(f"{name}: MLflow does not register it: {reason[:300]}") from None
    return Registered(version, before is None)


def description(source: Source, tags: dict[str, str]) -> str:
    """What a version says of itself: its run, its study, its value.

    Args:
        tags: of the run.
    """
    best, epoch = source.content["best"], source.content["epoch"]
    said = []
    if best["epoch"] == epoch:
        values = zip(best["objectives"], best["values"], strict=True)
        said.append(f"{', '.join(f'{name} {value:.4g}' for name, value in values)} at its best epoch, {epoch + 1}")
    else:
        said.append(f"epoch {epoch + 1}")
    if source.run_id:
        said.append(f"run {source.run_id}")
    if "study.name" in tags:
        trial = f", trial {tags['trial.number']}" if "trial.number" in tags else ""
        said.append(f"study {tags['study.name']}{trial}")
    return "; ".join(said) + (f". {source.why}" if source.why else "")


def _make_name(store: Store, name: str) -> None:
    try:
        store.client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _versions(store: Store, model: str) -> list[dict[str, Any]]:
    """The versions that are noted with a model, by ``name`` and ``version``, the oldest first."""
    noted = store.client.get_logged_model(model).tags.get(MLFLOW_MODEL_VERSIONS, "[]")
    known: list[dict[str, Any]] = json.loads(noted)
    return known


def _version_of(store: Store, model: str, name: str) -> str | None:
    """The newest version of a name that is of this model; None if there is none."""
    for each in reversed(_versions(store, model)):
        if each["name"] == name:
            try:
                found = store.client.get_model_version(name, str(each["version"]))
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":  # it was deleted since
                    raise
                continue
            if found.source == f"models:/{model}":
                return str(found.version)
    return None


def _show_with_model(store: Store, model: str, name: str, version: str) -> None:
    """Note with a model the versions that are of it, as MLflow's page of the model shows them."""
    known = _versions(store, model)
    if {"name": name, "version": version} not in [{**one, "version": str(one["version"])} for one in known]:
        known.append({"name": name, "version": version})
        store.client.set_logged_model_tags(model, {MLFLOW_MODEL_VERSIONS: json.dumps(known)})
