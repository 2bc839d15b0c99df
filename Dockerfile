# The daemon as an image. Built in two stages: what is needed for building stays in the first one.
#   docker build -t permission-mirror .
#   docker run --env-file mirror.env -p 127.0.0.1:9464:9464 permission-mirror
# Packages come by requirements.lock: what has another hash is not installed. With a directory wheels/ beside this file
# (python -m pip download ...), they come from there and from nowhere else.
# A tag can be moved, a digest cannot: --build-arg PYTHON_IMAGE=python:3.11.15-slim-bookworm@sha256:... (SECURITY.md says how).
ARG PYTHON_IMAGE=python:3.11.15-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Settings of pip, for machines with a package index of their own; they do not reach the final image.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ONLY_BINARY=:all: PIP_QUIET=1
WORKDIR /build
COPY . .
RUN if [ -d wheels ]; then export PIP_NO_INDEX=1 PIP_FIND_LINKS=/build/wheels; fi \
 && python -m venv --without-pip /opt/build && python -m venv --without-pip /opt/mirror \
 && python -m pip --python /opt/build/bin/python install --require-hashes --requirement deploy/build.lock \
 && python -m pip --python /opt/build/bin/python wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python -m pip --python /opt/mirror/bin/python install --require-hashes --requirement requirements.lock \
 && python -m pip --python /opt/mirror/bin/python install --no-deps dist/*.whl

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/mirror /opt/mirror
# A container's own 127.0.0.1 can be reached by nobody: publish the port to 127.0.0.1 of the host instead.
# It answers to addresses and localhost; by the name of a container or a service only with MIRROR_HTTP_HOSTS.
ENV PATH=/opt/mirror/bin:$PATH PYTHONUNBUFFERED=1 MIRROR_HTTP_HOST=0.0.0.0 MIRROR_HTTP_PORT=9464
# A number, so that `runAsNonRoot` can be checked without a look into /etc/passwd. It owns nothing and writes nothing.
USER 10001:10001
# mirror.toml is found here when it is mounted here.
WORKDIR /mirror
EXPOSE 9464
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 CMD ["python", "-c", "\
import http.client, os\n\
connection = http.client.HTTPConnection('127.0.0.1', int(os.environ['MIRROR_HTTP_PORT']), timeout=4)\n\
connection.request('GET', '/livez')\n\
raise SystemExit(connection.getresponse().status != 200)"]
ENTRYPOINT ["mirror"]
CMD ["run"]
