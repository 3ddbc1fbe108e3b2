"""What was asked before stages kept their fallback group learns it from its policy's version."""

from django.db import migrations

FALLBACKS = """
UPDATE approvals_requeststage copy SET fallback_group_id = stage.fallback_group_id
    FROM approvals_accessrequest request, approvals_stage stage
    WHERE request.id = copy.request_id AND request.state IN ('pending', 'changes_requested')
        AND request.round = copy.round AND stage.version_id = request.policy_version_id
        AND stage."order" = copy."order" AND stage.fallback_group_id IS NOT NULL
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0014_stages_over_time")]
    operations = [migrations.RunSQL(FALLBACKS, reverse_sql=migrations.RunSQL.noop)]
