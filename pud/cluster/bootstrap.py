"""The account by which runs record in an MLflow server that asks for a name and a password."""

import json
from collections.abc import Mapping

from pud.errors import InputError

ADMINISTRATOR = ("MLFLOW_ADMIN_USERNAME", "MLFLOW_ADMIN_PASSWORD")
ACCOUNT = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
REQUEST_SECONDS = 20.0


def make_account(environment: Mapping[str, str]) -> str:
    """Make the account that MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD name, as the administrator.

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
    authorization = urllib3.make_headers(basic_auth=f"{admin}:{admin_password}")
    pool = urllib3.PoolManager(
        timeout=REQUEST_SECONDS, retries=False, ca_certs=environment.get("REQUESTS_CA_BUNDLE") or None
    )
    try:
        answer = pool.request(
            "POST",
            f"{uri.rstrip('/')}/api/2.0/mlflow/users/create",
            body=json.dumps({"username": user, "password": password}),
            headers={**authorization, "Content-Type": "application/json"},
            redirect=False,
        )
    except urllib3.exceptions.HTTPError as error:
        reason = type(error).__name__
        raise InputError(f"MLflow at {uri} does not answer ({reason}): wait until it has started") from None
    if b"RESOURCE_ALREADY_EXISTS" in answer.data:
        return f"MLflow account {user}: was there"
    if answer.status != 200:
        raise InputError(f"MLflow at {uri} makes no account ({answer.status}): check {' and '.join(ADMINISTRATOR)}")
    return f"MLflow account {user}: made"
