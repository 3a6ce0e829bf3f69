# The one image of all services: `docker run modelmuxer services.router` runs one, `… services` the whole mesh.
# Any base with Python 3.11 or newer as python3, with venv, will do.
ARG BASE=docker.io/library/python:3.13-slim-bookworm

# hadolint ignore=DL3006
FROM ${BASE} AS build
# Where packages come from, and whose certificates that shows, if not PyPI's: the hashes of requirements.lock hold anyway.
ARG UV_DEFAULT_INDEX=https://pypi.org/simple
ARG PIP_CERT
ENV UV_PYTHON_DOWNLOADS=never UV_SYSTEM_CERTS=true UV_NO_CACHE=1 UV_LINK_MODE=copy
WORKDIR /src
COPY requirements.lock pyproject.toml README.md ./
COPY clients/python clients/python
# The lock pins and hashes everything, tests' tools included; as constraints it pins what the mesh needs, and no more is
# installed. Installed packages are compiled at the first start in vain where the file system is read-only, so they are here.
RUN python3 -m venv /build/uv \
    && /build/uv/bin/pip install --no-cache-dir --index-url "${UV_DEFAULT_INDEX}" \
        "uv==$(sed -n 's/^uv==\([0-9.]*\).*/\1/p' requirements.lock)" \
    && python3 -m venv --without-pip /opt/modelmuxer \
    && VIRTUAL_ENV=/opt/modelmuxer /build/uv/bin/uv pip install --constraint requirements.lock \
        --requirements pyproject.toml --no-sources-package modelmuxer-client ./clients/python \
    && find /opt/modelmuxer -name tests -path '*/site-packages/*' -type d -prune -exec rm -rf {} +
COPY services services
COPY shared shared
RUN VIRTUAL_ENV=/opt/modelmuxer /build/uv/bin/uv pip install --no-deps . \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/modelmuxer/lib

# hadolint ignore=DL3006
FROM ${BASE}
COPY --from=build /opt/modelmuxer /opt/modelmuxer
# A home that its user may write to, for those who mount no volume there.
RUN install -d -o 65532 -g 65532 -m 700 /var/lib/modelmuxer
ENV PATH=/opt/modelmuxer/bin:$PATH \
    PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MODELMUXER_HOME=/var/lib/modelmuxer
USER 65532:65532
WORKDIR /var/lib/modelmuxer
EXPOSE 50051 8000
# Asks what process 1 runs (the router for a whole mesh). Kubernetes ignores it and probes by gRPC itself.
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=2 \
    CMD ["sh", "-c", "module=$(tr '\\0' '\\n' < /proc/1/cmdline | grep -m1 '^services'); \
        [ \"$module\" != services ] || module=services.router; exec python -m \"$module\" --health"]
ENTRYPOINT ["python", "-m"]
CMD ["services.router"]
