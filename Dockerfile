# Headwater's roles. Servers run in containers of their own, so the embedded engine and the trial
# broker (700 MB) stay out.
FROM python:3.12-slim-bookworm AS build
WORKDIR /source
COPY requirements.lock ./
RUN python -m venv /venv \
 && awk '/^[a-z]/ { keep = !/^(chdb|chdb-core|noida-db)==/ } keep' requirements.lock > chosen.lock \
 && /venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      --require-hashes --no-deps -r chosen.lock
COPY . .
RUN /venv/bin/pip install --no-cache-dir --disable-pip-version-check \
      --no-deps --no-build-isolation .

FROM python:3.12-slim-bookworm
COPY --from=build /venv /venv
RUN useradd --uid 1000 --create-home headwater
USER headwater
WORKDIR /home/headwater
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1
ENTRYPOINT ["headwater"]
CMD ["--help"]
