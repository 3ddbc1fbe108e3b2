"""Every setting, from the environment. docs/configuration.md lists them; a test compares.

Unsafe combinations are system checks with ids (debugflow/checks.py), not surprises here.
"""

from __future__ import annotations

from pathlib import Path

from django.templatetags.static import static

from debugflow import env
from debugflow.logging import configuration as logging_configuration
from debugflow.logging import configure as configure_structlog

BASE_DIR = Path(__file__).resolve().parent.parent

DEBUG = env.boolean("DEBUG", False)
SECRET_KEY = env.text("SECRET_KEY")
SECRET_KEY_FALLBACKS = env.words("SECRET_KEY_FALLBACKS")
# Fernet keys, newest first: the first encrypts, all decrypt.
ENCRYPTION_KEYS = env.words("DEBUGFLOW_ENCRYPTION_KEYS")
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")
TRUSTED_PROXIES = env.words("TRUSTED_PROXIES")
# False only where the site is served without TLS, as the demo on localhost is.
SECURE = env.boolean("DEBUGFLOW_SECURE", not DEBUG)
# A demonstration: printed sign-ins, short clocks, targets without TLS. Refused outside localhost.
DEMO = env.boolean("DEBUGFLOW_DEMO", False)

# Production targets whose identity is not verified (sslmode other than verify-full).
ALLOW_UNVERIFIED_TARGETS = env.boolean("DEBUGFLOW_ALLOW_UNVERIFIED_TARGETS", DEMO)

# Whether a change that widens access to production takes a second person.
FOUR_EYES = env.boolean("DEBUGFLOW_FOUR_EYES", not (DEBUG or DEMO))

INSTALLED_APPS = [
    "debugflow.apps.DebugflowConfig",
    "approvals.apps.ApprovalsConfig",
    "audit.apps.AuditConfig",
    # Before Django's admin, whose templates it replaces.
    "unfold.apps.BasicAppConfig",
    "debugflow.apps.DeskConfig",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    # After Django's own, whose page for groups it replaces.
    "debugflow.accounts.apps.AccountsConfig",
    "guardian",
    "rest_framework",
    "drf_spectacular_sidecar",
    "csp",
]

MIDDLEWARE = [
    # First, so that whatever the others answer, errors included, has them.
    "debugflow.headers.SecurityHeadersMiddleware",
    # Next, so that whatever the others say or refuse has a request id.
    "debugflow.middleware.RequestContextMiddleware",
    # Before whatever looks at hosts and TLS: load balancers and containers ask by address.
    "debugflow.health.HealthMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "debugflow.accounts.browsers.KnownBrowserMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "approvals.middleware.DomainErrorMiddleware",
]

ROOT_URLCONF = "debugflow.urls"
ASGI_APPLICATION = "debugflow.asgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "debugflow" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

# psycopg's pool, not CONN_MAX_AGE: synchronous views under ASGI run in short-lived threads, each
# with a connection of its own, and persistent ones ran the server out of connections.
DATABASES = {"default": env.database("DATABASE_URL", password=env.text("DATABASE_PASSWORD", ""))}
_given: dict[str, str] = DATABASES["default"]["OPTIONS"]  # type: ignore[assignment]
DATABASES["default"]["OPTIONS"] = {
    # Seconds, and milliseconds: a network that swallows what is sent must not hold a sweeper up for
    # the quarter of an hour that the kernel would go on trying, nor for long once it is healed.
    "connect_timeout": 3,
    "tcp_user_timeout": 4000,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    **_given,
    # A process that is stopped inside a transaction must not keep a grant's row locked past its
    # end: no transaction of ours waits for anything but this database. As long as a cut's lease.
    "options": f"{_given.get('options', '')} -c idle_in_transaction_session_timeout=3s".strip(),
    # Statements are planned once a connection, not each time: half again as many votes a second.
    "server_side_binding": True,
    "prepare_threshold": 3,
    "pool": {
        "min_size": 0,
        "max_size": env.number("DATABASE_POOL_SIZE", 16, at_least=2),
        # Longer than attempts at connecting go on, each after twice the pause of the one before:
        # at the pool's 300 s a sweeper looked again 11 s after an outage of 20 s.
        "timeout": 4,
        "reconnect_timeout": 3,
        "max_idle": 60,
    },
}
# `migrate` alone connects as the migrator, who is a member of the role that owns the tables.
MIGRATIONS_DATABASE_URL = env.text("MIGRATIONS_DATABASE_URL", "")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "debugflow.accounts.backends.PasswordBackend",
    "guardian.backends.ObjectPermissionBackend",
]
ANONYMOUS_USER_NAME = None
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "sign-in"

SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SESSION_COOKIE_NAME = "__Host-session" if SECURE else "session"
CSRF_COOKIE_NAME = "__Host-csrf" if SECURE else "csrf"
# Nobody reads it but forms that hold the token themselves.
CSRF_COOKIE_HTTPONLY = True
KNOWN_BROWSER_COOKIE_NAME = "__Host-known" if SECURE else "known"
# In the session: one cookie less, which would have no such name.
MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"
SECURE_SSL_REDIRECT = SECURE
SECURE_HSTS_SECONDS = 365 * 86400 if SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE
SECURE_HSTS_PRELOAD = SECURE
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if TRUSTED_PROXIES else None
SECURE_REFERRER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "connect-src": ["'self'"],
        "form-action": ["'self'"],
        "frame-ancestors": ["'none'"],
        "base-uri": ["'none'"],
    }
}
# The admin's pages alone: what moves in them is told in attributes, which are evaluated.
ADMIN_CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        **CONTENT_SECURITY_POLICY["DIRECTIVES"],
        "script-src": ["'self'", "'unsafe-eval'"],
    }
}
UNFOLD = {
    "SITE_TITLE": "debugflow",
    "SITE_HEADER": "debugflow",
    "SITE_SYMBOL": "verified_user",
    "SITE_FAVICONS": [
        {"rel": "icon", "type": "image/svg+xml", "href": lambda request: static("favicon.svg")}
    ],
    "STYLES": [lambda request: static("desk.css")],
    "SCRIPTS": [lambda request: static("desk.js")],
    "SIDEBAR": {"navigation": "debugflow.desk.menu"},
    "BORDER_RADIUS": None,
}

LANGUAGE_CODE = "en-gb"
FORMAT_MODULE_PATH = "debugflow.formats"
TIME_ZONE = "UTC"
USE_I18N = False
USE_TZ = True

STATIC_URL = "static/"
STATIC_ROOT = Path(env.text("STATIC_ROOT", BASE_DIR / "staticfiles"))
STATICFILES_DIRS = [BASE_DIR / "debugflow" / "static"]
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"
        if DEBUG or DEMO
        else "whitenoise.storage.CompressedManifestStaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = DEBUG or DEMO

# Days that a token of the API lasts at most.
API_TOKEN_DAYS = env.number("DEBUGFLOW_API_DAYS", 365, at_least=1)

# Calls a minute that one token, or one person's sessions, may make.
API_RATE = env.number("DEBUGFLOW_API_RATE", 600, at_least=1)

# The strict ones, so that a view which forgets our base class is no weaker.
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "debugflow.accounts.bearer.Bearer",
        "approvals.api.authentication.Session",
    ],
    "DEFAULT_PERMISSION_CLASSES": [
        "rest_framework.permissions.IsAuthenticated",
        "approvals.api.permissions.WithinScope",
    ],
    "DEFAULT_PARSER_CLASSES": ["approvals.api.parsers.StrictJSON"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "EXCEPTION_HANDLER": "approvals.api.errors.problem",
    "DEFAULT_PAGINATION_CLASS": "approvals.api.pagination.NewestFirst",
    "PAGE_SIZE": 50,
    "DEFAULT_THROTTLE_CLASSES": ["approvals.api.throttles.PerCaller"],
    "DEFAULT_SCHEMA_CLASS": "approvals.api.schema.Described",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "debugflow",
    "DESCRIPTION": "Access to production that is asked for, agreed to, and ends on time.",
    "VERSION": "1",
    "OAS_VERSION": "3.1.1",
    "POSTPROCESSING_HOOKS": ["approvals.api.schema.strict"],
}

REDIS_URL = env.with_password(
    env.text("REDIS_URL", "redis://localhost:6379/0"), env.text("REDIS_PASSWORD", "")
)
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_REJECT_ON_WORKER_LOST = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
# At the default of 100 a worker exits, and the sweeper inside it with it.
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# Nor may it exit because the broker answered with an error, as one that is full does.
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_POOL_ACQUIRE_TIMEOUT = 5
# SIGTERM waits for tasks as long as they take; SIGQUIT this many seconds, then hands them back.
CELERY_WORKER_SOFT_SHUTDOWN_TIMEOUT = 10.0
# kombu's default sweep for unacknowledged messages runs every ~100 s; 93 s to redelivery measured.
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 180,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,
    "global_keyprefix": "debugflow:",
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 5,
}
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "approvals.tasks.open_grant": {"queue": "provision"},
    "approvals.tasks.extend_grant": {"queue": "provision"},
    "approvals.tasks.close_grant": {"queue": "revoke"},
    "approvals.tasks.tell": {"queue": "notify"},
}

# Seconds between two looks of one sweeper (0.5 to 1).
SWEEP_INTERVAL = env.number("DEBUGFLOW_SWEEP_INTERVAL_MS", 500, at_least=100) / 1000
# Threads that carry out what one sweeper claimed.
SWEEP_THREADS = env.number("DEBUGFLOW_SWEEP_THREADS", 16, at_least=2)

# Seconds between two comparisons of one target with the ledger.
RECONCILE_INTERVAL = env.number("DEBUGFLOW_RECONCILE_INTERVAL", 60, at_least=5)
# Where the gateway connects from. A session of a gateway level from anywhere else is ended.
GATEWAY_ADDRESSES = env.networks("DEBUGFLOW_GATEWAY_ADDRESSES")

EMAIL_BACKEND = "approvals.smtp.Backend"
# Without a server to give mails to none is sent, and a system check says so.
EMAIL_HOST = env.text("EMAIL_HOST", "")
EMAIL_PORT = env.number("EMAIL_PORT", 587, at_least=1)
EMAIL_HOST_USER = env.text("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = env.text("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_SSL = env.boolean("EMAIL_USE_SSL", False)
EMAIL_USE_TLS = env.boolean("EMAIL_USE_TLS", not EMAIL_USE_SSL)
# Seconds for connecting, for each answer and for each letter's sending: a server that never answers
# must not keep a thread.
EMAIL_TIMEOUT = env.number("EMAIL_TIMEOUT", 5, at_least=1)
DEFAULT_FROM_EMAIL = env.text("DEFAULT_FROM_EMAIL", "debugflow@localhost")
# Where people reach the site: what links in mails begin with.
SITE_URL = env.text("DEBUGFLOW_SITE_URL", "").rstrip("/")

# Networks that webhooks may be sent to although they are not public, and without TLS as well.
WEBHOOK_NETWORKS = env.networks("DEBUGFLOW_WEBHOOK_NETWORKS")

# Where Slack's API is. Only a stand-in of it, in tests, is anywhere else.
SLACK_API_URL = "https://slack.com/api/"

# What whoever reads /metrics has to show; without one nobody may.
METRICS_TOKEN = env.text("DEBUGFLOW_METRICS_TOKEN", "")

LOG_LEVEL = env.text("LOG_LEVEL", "INFO")
LOGGING_CONFIG = "logging.config.dictConfig"
LOGGING = logging_configuration(level=LOG_LEVEL, json=not (DEBUG or DEMO))
configure_structlog()
