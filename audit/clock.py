"""The one clock of verbs and due scans: the database's. No other time decides anything.

The SQL function `dbnow()` is `clock_timestamp()` plus the shift in the one row of `audit_clock`,
which only the table's owner may change: production leaves it at zero.
"""

from datetime import datetime
from typing import cast

from django.db import connection, models


def now() -> datetime:
    """The database's time, in a statement of its own. Call it *after* the lock is held.

    PostgreSQL's `now()` is the start of the transaction: a vote that waited for its lock past a
    deadline would pass as in time. Likewise, a clock read in the statement that takes the lock
    may be read before the wait.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT dbnow()")
        return cast(datetime, cursor.fetchone()[0])


class DbNow(models.Func):
    """`dbnow()` for the ORM's filters, evaluated once per statement.

    A bare volatile function is evaluated for each row and cannot use an index; as a scalar
    sub-select it is a constant of the plan.
    """

    template = "(SELECT dbnow())"
    arity = 0
    output_field = models.DateTimeField()
