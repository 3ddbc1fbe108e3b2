FROM python:3.11.14-slim-bookworm AS packages
COPY requirements.lock /tmp/requirements.lock
RUN python -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock

FROM python:3.11.14-slim-bookworm
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 STATIC_ROOT=/app/staticfiles
RUN useradd --system --uid 10001 --user-group --no-create-home debugflow
COPY --from=packages /opt/venv /opt/venv
# Root's, and readable to all: the process that runs it can change nothing of it.
COPY . /app
WORKDIR /app
# Collecting files needs settings, and settings need keys. These exist for this one command only:
# nothing is connected to, encrypted or signed, and nothing of them stays in the image.
RUN SECRET_KEY=unused-at-build-time DATABASE_URL=postgresql://unused@localhost/unused \
    REDIS_URL=redis://localhost/0 python manage.py collectstatic --noinput
USER 10001:10001
EXPOSE 8000
# Shorter than the `stop_grace_period` of docker-compose.yml: what a page waits for ends first.
CMD ["uvicorn", "debugflow.asgi:application", "--host=0.0.0.0", "--port=8000", "--workers=2", "--no-proxy-headers", "--timeout-graceful-shutdown=20"]
