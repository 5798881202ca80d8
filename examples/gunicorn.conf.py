"""The configuration of gunicorn for examples/deploy.py, with the reason for each line.

One worker: a private run lives in the process that began it, and the workers of one
gunicorn share a socket, so that nobody can say to which of them a client comes back. To
use more cores for such, start several gunicorns, each on a port of its own, behind a
proxy that sends a client to the same one each time (docs/howto/several-workers.md).
Channels, and a store that workers share, need nothing of it: two_workers.py has two.
"""

bind = "127.0.0.1:8080"

# aiohttp.GunicornUVLoopWebWorker where uvloop is installed.
worker_class = "aiohttp.GunicornWebWorker"
workers = 1

# Streams end by themselves when the worker is told to stop; this is for other requests.
graceful_timeout = 10

# A worker that does not answer its master for so long is killed. Streams do not count:
# the loop answers beside them.
timeout = 30
