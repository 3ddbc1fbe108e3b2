"""Longer access: what a policy allows of it, the request for it, and how far a grant has come."""

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("approvals", "0011_emergencies"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name="step",
            name="step_kind_known",
        ),
        migrations.AddField(
            model_name="accessrequest",
            name="extends",
            field=models.ForeignKey(
                null=True,
                on_delete=django.db.models.deletion.PROTECT,
                related_name="extensions",
                to="approvals.grant",
            ),
        ),
        migrations.AddField(
            model_name="grant",
            name="bridged_at",
            field=models.DateTimeField(
                help_text="Prolonged once because the decision about an extension was out.",
                null=True,
            ),
        ),
        migrations.AddField(
            model_name="grant",
            name="extended_count",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="Extensions that were agreed to."
            ),
        ),
        migrations.AddField(
            model_name="grant",
            name="extended_until",
            field=models.DateTimeField(null=True),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="bridge",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Seconds a grant goes on, once, if the decision is still out at its end.",
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="extension_approval",
            field=models.CharField(
                choices=[
                    ("chain", "The whole chain"),
                    ("last", "The last stage"),
                    ("none", "Nobody"),
                ],
                db_default="chain",
                default="chain",
                max_length=10,
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="extension_max",
            field=models.PositiveIntegerField(
                db_default=0, default=0, help_text="Seconds that one extension may add."
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="extension_window",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Seconds before the end from which it may be asked for.",
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="extensions_most",
            field=models.PositiveSmallIntegerField(
                db_default=0, default=0, help_text="How often a grant may be extended."
            ),
        ),
        migrations.AddField(
            model_name="policyversion",
            name="max_total",
            field=models.PositiveIntegerField(
                db_default=0,
                default=0,
                help_text="Seconds a grant may last in all, from its opening, extensions included.",
            ),
        ),
        migrations.AlterField(
            model_name="step",
            name="kind",
            field=models.CharField(
                choices=[
                    ("open", "Open"),
                    ("extend", "Extend"),
                    ("cut", "Cut"),
                    ("clean", "Clean up"),
                ],
                max_length=10,
            ),
        ),
        migrations.AddIndex(
            model_name="grant",
            index=models.Index(
                condition=models.Q(("next_try_at__isnull", False), ("state", "active")),
                fields=["next_try_at"],
                name="grant_extending",
            ),
        ),
        migrations.AddConstraint(
            model_name="accessrequest",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    ("extends__isnull", False),
                    ("state__in", frozenset(["changes_requested", "pending"])),
                ),
                fields=("extends",),
                name="request_one_undecided_extension",
            ),
        ),
        migrations.AddConstraint(
            model_name="accessrequest",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(
                        ("extends__isnull", False),
                        ("kind", "extension"),
                        ("starts_at__isnull", False),
                    ),
                    models.Q(
                        models.Q(("kind", "extension"), _negated=True), ("extends__isnull", True)
                    ),
                    _connector="OR",
                ),
                name="request_extends_if_extension",
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(("extension_approval__in", ["chain", "last", "none"])),
                name="version_extension_approval_known",
            ),
        ),
        migrations.AddConstraint(
            model_name="policyversion",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("extensions_most", 0),
                    models.Q(
                        ("extension_max__gt", models.F("bridge")),
                        ("extension_window__gt", 0),
                        ("max_total__gte", models.F("max_duration")),
                    ),
                    _connector="OR",
                ),
                name="version_extensions_have_bounds",
            ),
        ),
        migrations.AddConstraint(
            model_name="step",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ["open", "extend", "cut", "clean"])),
                name="step_kind_known",
            ),
        ),
    ]
