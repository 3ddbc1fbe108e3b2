from django.apps import AppConfig


class ApprovalsConfig(AppConfig):
    name = "approvals"

    def ready(self) -> None:
        # The first declares what the audit log may be told, the second what can be proposed.
        from approvals import carrying_out, events  # noqa: F401
        from approvals.log_reading import LogReader
        from approvals.notify import outbox
        from audit import log, reading

        reading.register(LogReader())
        log.listen(outbox.written)
