# The image of every process of compliance-worker; docker-compose.yml says which command runs.
# Health checks are per process and stand in docker-compose.yml.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/compliance
ENV PATH=/opt/compliance/bin:$PATH
COPY worker/requirements.txt /tmp/requirements.txt
RUN pip install --require-hashes --only-binary :all: -r /tmp/requirements.txt
COPY . /src
RUN pip install --no-deps --no-build-isolation /src && pip uninstall -y setuptools pip

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 compliance \
    && useradd --uid 10001 --gid compliance --home-dir /nonexistent --shell /usr/sbin/nologin compliance \
    && install -d -o compliance -g compliance -m 0700 /transfer /guard
COPY --from=build /opt/compliance /opt/compliance
ENV PATH=/opt/compliance/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    COMPLIANCE_ENV=production \
    COMPLIANCE_TRANSFER_DIR=/transfer
WORKDIR /
USER 10001:10001
CMD ["celery", "-A", "worker", "worker"]
