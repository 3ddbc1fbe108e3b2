from django.apps import AppConfig


class ApprovalsConfig(AppConfig):
    name = "approvals"

    def ready(self) -> None:
        from approvals import events  # noqa: F401  (declares what the audit log may be told)
        from approvals.log_reading import LogReader
        from approvals.notify import outbox
        from audit import log, reading

        reading.register(LogReader())
        log.listen(outbox.written)
