# One node of the store. The same image is a leader or a follower; the environment decides.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore

RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin quorumeter

# The dependencies change rarely and the code often: two layers. Only the store's code goes in,
# and of the tool the entry point that says what it lacks here.
WORKDIR /opt/quorumeter
COPY requirements/node.txt requirements/node.txt
RUN pip install --require-hashes -r requirements/node.txt

COPY pyproject.toml README.md ./
COPY orchestration/__init__.py orchestration/__main__.py orchestration/
COPY kv_app kv_app
RUN pip install --no-deps .

# Where to put a volume: set DATA_DIR=/data to keep the node's data there.
RUN install -d -o 10001 /data

USER 10001
WORKDIR /
ENV HOST=0.0.0.0 PORT=8000
EXPOSE 8000

# The node itself is asked, where it listens, whatever proxy the container is given.
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 \
    CMD ["python", "-c", "import http.client as h, os; c = h.HTTPConnection(os.environ['HOST'] or '127.0.0.1', int(os.environ['PORT']), timeout=2); c.request('GET', '/health'); exit(c.getresponse().status != 200)"]

CMD ["python", "-m", "kv_app"]
