# One image for every task of the pipeline, the bootstrap job and the MLflow server. `make image` builds it.
# VARIANT: cpu or cuda, the lock file in image/. PIP_ARGS: where pip finds the locked wheels, beside build/wheels/VARIANT.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ARG VARIANT=cpu
ARG PIP_ARGS=""
WORKDIR /src
COPY image/${VARIANT}.lock image.lock
RUN --mount=type=bind,source=build/wheels,target=/wheels \
    python3 -m venv /opt/pud && \
    /opt/pud/bin/pip install --no-cache-dir --no-compile --no-deps --find-links /wheels/${VARIANT} ${PIP_ARGS} -r image.lock
COPY pyproject.toml README.md ./
COPY pud pud
RUN --mount=type=bind,source=build/wheels,target=/wheels \
    /opt/pud/bin/pip install --no-cache-dir --no-compile --no-deps --find-links /wheels/${VARIANT} ${PIP_ARGS} . && \
    /opt/pud/bin/pip uninstall --quiet --yes pip && \
    find /opt/pud -type d \( -name __pycache__ -o -name tests -path "*/torch/*" -o -path "*/Crypto/SelfTest" \) -prune -exec rm -rf {} +
COPY components /opt/pud/app/components

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
