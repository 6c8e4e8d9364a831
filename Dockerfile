# The service in a container. Build: docker build -t lmrec .   Run: see docs/operations.md, or `docker compose up`.
FROM python:3.12-slim-bookworm AS build
WORKDIR /src
# numpy, torch and the rest in the versions that the tests run with; torch without CUDA, which is a tenth of the size.
RUN python -m venv /opt/lmrec
ENV PATH=/opt/lmrec/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
RUN pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY src src
RUN pip install -c constraints.txt '.[service,postgresql]'

FROM python:3.12-slim-bookworm
COPY --from=build /opt/lmrec /opt/lmrec
# The store holds personal data, so the process is nobody's but its own and writes to /runs only.
RUN useradd --uid 10001 --create-home lmrec && install -d -o lmrec -g lmrec -m 700 /runs
USER lmrec
ENV PATH=/opt/lmrec/bin:$PATH HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false PYTHONUNBUFFERED=1
VOLUME /runs
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
ENTRYPOINT ["lmrec"]
# 0.0.0.0 is refused until there is a key: `docker compose run --rm lmrec keys /runs/mine add ops --scope admin`.
CMD ["serve", "/runs/mine", "--host", "0.0.0.0", "--port", "8000"]
