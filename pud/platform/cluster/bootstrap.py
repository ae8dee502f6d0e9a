"""The account by which runs record in an MLflow server that asks for a name and a password, and their experiment."""

import json
from collections.abc import Mapping
from typing import Any

from pud.artifacts.storage import authorities
from pud.base.errors import InputError, without_userinfo
from pud.reporting.experiment import experiment_tags

ADMINISTRATOR = ("MLFLOW_ADMIN_USERNAME", "MLFLOW_ADMIN_PASSWORD")
ACCOUNT = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
EXPERIMENT = "pud"  # where runs record unless the tracking parameter names another: pud.reporting.tracking.Tracking
REQUEST_SECONDS = 20.0


def make_account(environment: Mapping[str, str]) -> str:
    """Make the account that MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD name, and as it the experiment.

    The account may make experiments and owns what it makes; what others made it may read (MLflow's default permission).
    Safe to run again. Returns a sentence.

    Raises:
        InputError: a variable is missing, or the server cannot be reached or refuses.
    """
    import urllib3

    names = ("MLFLOW_TRACKING_URI", *ADMINISTRATOR, *ACCOUNT)
    if missing := [name for name in names if not environment.get(name)]:
        raise InputError(f"the MLflow account cannot be made: set {', '.join(missing)} (see manifests/README.md)")
    uri, admin, admin_password, user, password = (environment[name] for name in names)
    trusted = authorities(environment.get("REQUESTS_CA_BUNDLE"))
    pool = urllib3.PoolManager(timeout=REQUEST_SECONDS, retries=False, ca_certs=trusted or None)

    shown = without_userinfo(uri)

    def made(what: str, path: str, content: Mapping[str, Any], signed: str, variables: tuple[str, str]) -> str:
        headers = {**urllib3.make_headers(basic_auth=signed), "Content-Type": "application/json"}
        url = f"{uri.rstrip('/')}/api/2.0/mlflow/{path}/create"
        try:
            answer = pool.request("POST", url, body=json.dumps(content), headers=headers, redirect=False)
        except urllib3.exceptions.HTTPError as error:
            reason = type(error).__name__
            raise InputError(f"MLflow at {shown} does not answer ({reason}): wait until it has started") from None
        if b"RESOURCE_ALREADY_EXISTS" in answer.data:
            return f"{what}: was there"
        if answer.status != 200:
            raise InputError(f"MLflow at {shown} makes no {what} ({answer.status}): check {' and '.join(variables)}")
        return f"{what}: made"

    account = {"username": user, "password": password}
    done = made(f"account {user}", "users", account, f"{admin}:{admin_password}", ADMINISTRATOR)
    content = {"name": EXPERIMENT, "tags": [{"key": key, "value": value} for key, value in experiment_tags().items()]}
    experiment = made(f"experiment {EXPERIMENT}", "experiments", content, f"{user}:{password}", ACCOUNT)
    return f"MLflow {done}, {experiment}"
