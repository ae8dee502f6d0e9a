"""Print the secrets that the manifests name, with new random values. Nothing is written to disk and nothing replaced:

python manifests/credentials.py --namespace pud | kubectl create --filename -
"""

import argparse
import json
import secrets
from typing import Any

KEY, SECRET = "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"

# One identity of the object store per use: {secret: what it may do, by SeaweedFS's names of actions}
IDENTITIES = {
    "object-store-root": ["Admin", "Read", "Write", "List", "Tagging"],
    "pud-storage-credentials": ["Read:pud-data", "List:pud-data"],
    "pud-data-publisher": ["Read:pud-data", "List:pud-data", "Write:pud-data", "Tagging:pud-data"],
    "mlflow-storage-credentials": ["Read:pud-mlflow", "List:pud-mlflow", "Write:pud-mlflow", "Tagging:pud-mlflow"],
    "pud-pipeline-credentials": ["Read:pud-pipelines", "List:pud-pipelines", "Write:pud-pipelines"],
}


def credentials() -> dict[str, dict[str, str]]:
    """Return {secret: {key: value}}."""
    keys = {name: {KEY: secrets.token_hex(10), SECRET: secrets.token_urlsafe(30)} for name in IDENTITIES}
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": pair[KEY], "secretKey": pair[SECRET]}],
            "actions": IDENTITIES[name],
        }
        for name, pair in keys.items()
    ]
    database, administrator = secrets.token_hex(24), secrets.token_urlsafe(24)
    uri = f"postgresql+psycopg2://mlflow:{database}@postgres:5432/mlflow"
    auth = {
        "default_permission": "READ",
        "database_uri": uri,
        "admin_username": "admin",
        "admin_password": administrator,
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
    }
    return keys | {
        "object-store-identities": {"s3.json": json.dumps({"identities": identities})},
        "mlflow-database": {"POSTGRES_DB": "mlflow", "POSTGRES_USER": "mlflow", "POSTGRES_PASSWORD": database},
        "mlflow-server": {
            "MLFLOW_BACKEND_STORE_URI": uri,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(32),
        },
        "mlflow-auth": {"basic_auth.ini": "\n".join(["[mlflow]", *(f"{k} = {v}" for k, v in auth.items())]) + "\n"},
        "mlflow-admin": {"USERNAME": "admin", "PASSWORD": administrator},
        "pud-tracking-credentials": {
            "MLFLOW_TRACKING_USERNAME": "pud",
            "MLFLOW_TRACKING_PASSWORD": secrets.token_urlsafe(24),
        },
    }


def manifest(namespace: str) -> dict[str, Any]:
    """Return a list of Secrets as the Kubernetes API takes it."""
    labels = {"app.kubernetes.io/part-of": "pud"}
    items = [
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "Opaque",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "stringData": values,
        }
        for name, values in credentials().items()
    ]
    return {"apiVersion": "v1", "kind": "List", "items": items}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--namespace", default="pud")
    print(json.dumps(manifest(parser.parse_args().namespace), indent=1))
