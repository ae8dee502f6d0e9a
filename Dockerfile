# One image for every task of the pipeline, the bootstrap job and the MLflow server. `make image` builds it from
# build/wheels/VARIANT: VARIANT is cpu or cuda, the lock file in image/.
# BASE: python:3.11-slim-bookworm of 25 August 2026, the digest of its index (all platforms), from github.com/docker-library/
# repo-info at 33a22f41ac7b, repos/python/remote/3.11-slim-bookworm.md. To renew it take the digest there now.
ARG BASE=python:3.11-slim-bookworm@sha256:0bee7276f83efd4a1ee05bbbf4281d95ed28e079220a9457f25a93e3f1e3c31b

FROM ${BASE} AS build
ARG VARIANT=cpu
WORKDIR /src
COPY image/${VARIANT}.lock image.lock
# the wheels were checked against the lock when they were downloaded; here nothing is, and what make built has no hash in it
RUN --mount=type=bind,source=build/wheels,target=/wheels \
    python3 -m venv /opt/pud && sed 's/ --hash=.*//' image.lock > pinned && \
    /opt/pud/bin/pip install --no-cache-dir --no-compile --no-deps --no-index --find-links /wheels/${VARIANT} -r pinned
COPY pyproject.toml README.md LICENSE ./
COPY pud pud
COPY components components
COPY pipelines pipelines
RUN --mount=type=bind,source=build/wheels,target=/wheels \
    /opt/pud/bin/pip install --no-cache-dir --no-compile --no-deps --no-index --find-links /wheels/${VARIANT} . && \
    /opt/pud/bin/pip uninstall --quiet --yes pip && \
    find /opt/pud -type d \( -name __pycache__ -o -name tests -path "*/torch/*" -o -path "*/Crypto/SelfTest" \) -prune -exec rm -rf {} + && \
    install --directory /opt/pud/app && cp -r components /opt/pud/app/components

FROM ${BASE}
RUN useradd --uid 1000 --user-group --create-home pud && install --directory --owner=pud /var/cache/pud
COPY --from=build /opt/pud /opt/pud
COPY pipelines/pud.yaml /home/pud/pipelines/pud.yaml
ARG COMMIT=unknown
LABEL org.opencontainers.image.title=pud org.opencontainers.image.revision=${COMMIT}
ENV PATH=/opt/pud/bin:${PATH} PYTHONPATH=/opt/pud/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 HOME=/home/pud \
    PUD_COMMIT=${COMMIT}
USER 1000
WORKDIR /home/pud
CMD ["pud", "--help"]
