"""What a deployment would provide: the broker, the secrets, the settings."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from redis import Redis
from redis.backoff import ConstantBackoff
from redis.exceptions import ConnectionError
from redis.retry import Retry

COMMAND = "pg_virtualenv python -m pytest"


class Broker:
    """A Redis of our own on a socket, to be stopped and started at will."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.process: subprocess.Popen | None = None
        wait_for_start = Retry(ConstantBackoff(0.02), retries=250)
        self.redis = Redis(
            unix_socket_path=str(self.socket),
            retry=wait_for_start,
            retry_on_error=[ConnectionError],
        )

    def start(self) -> None:
        """Empty, and with the users that the application's cache and its locks log in as."""
        if self.process:
            return
        command = ["redis-server", "--port", "0", "--unixsocket", self.socket, "--save", ""]
        log = self.folder / "redis.log"
        self.process = subprocess.Popen([*command, "--dir", self.folder, "--logfile", log])
        for user in ("cache", "worker"):
            self.redis.acl_setuser(user, True, passwords=[f"+{user}-password"], keys=["*"],
                                   categories=["+@all"])  # fmt: skip

    def stop(self) -> None:
        if self.process:
            self.redis.close()
            self.process.kill()
            self.process.wait()
            self.process = None
            self.socket.unlink(missing_ok=True)

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Connections are taken and nothing is ever answered."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def waiting(self, queue: str) -> int:
        """How many messages nobody has taken yet."""
        return self.redis.llen(queue)


def write_environment(folder: Path, broker: Broker) -> None:
    """Set the contract of shop/settings.py, as the deployment does."""
    secrets = {
        # pragma: allowlist nextline secret
        "secret_key": "for-tests-only-0123456789-abcdefghijklmnopqrstuvwxyz",
        # pragma: allowlist nextline secret
        "secret_key_fallbacks": "the-key-before-0123456789-abcdefghijklmnopqrstuvwx",
        "database_password": os.environ.get("PGPASSWORD", "unused"),
        # pragma: allowlist nextline secret
        "cache_password": "cache-password",
        "redis_password": "worker-password",  # pragma: allowlist secret
    }
    credentials = folder / "credentials"
    credentials.mkdir()
    for name, secret in secrets.items():
        (credentials / name).write_text(secret)
    celery = folder / "celery.json"
    celery.write_text(json.dumps(celery_settings(broker)))
    user, host = os.environ["PGUSER"], os.environ["PGHOST"].replace("/", "%2F")
    os.environ |= {
        "DJANGO_SETTINGS_MODULE": "shop.settings",
        "CREDENTIALS_DIRECTORY": str(credentials),
        "DATABASE_URL": f"postgres://{user}@{host}:{os.environ.get('PGPORT', '5432')}/shop",
        "CACHE_URL": f"unix://{broker.socket}?db=1",
        "LOCKS_URL": f"unix://{broker.socket}?db=1",
        "REDIS_USERNAME": "worker",
        "CELERY_SETTINGS_FILE": str(celery),
        "ALLOWED_HOSTS": "shop.example.org",
        "CSRF_TRUSTED_ORIGINS": "https://shop.example.org",
        "STATIC_ROOT": str(folder / "static"),
        "MEDIA_ROOT": str(folder / "media"),
        "RELEASE_ID": "r1",
    }


def celery_settings(broker: Broker) -> dict:
    return {
        "broker_url": f"redis+socket://{broker.socket}?virtual_host=0",
        "broker_transport_options": {
            "visibility_timeout": 420,
            "socket_timeout": 0.5,
            "socket_connect_timeout": 1,
        },
        "broker_connection_retry_on_startup": True,
        "task_queues": {"critical": {}, "default": {}, "bulk": {}},
        "task_routes": {
            "orders.tasks.charge_order": {"queue": "critical"},
            "news_tasks.attempt": {"queue": "bulk"},
        },
        "task_default_queue": "default",
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_retry_on_worker_lost": True,
        "task_publish_retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0},
        "task_soft_time_limit": 20,
        "task_time_limit": 30,
        "task_longest_time_limit": 30,
        "worker_prefetch_multiplier": 1,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "timezone": "UTC",
        "enable_utc": True,
    }
