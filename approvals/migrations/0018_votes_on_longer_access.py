"""Whoever asked for an access does not vote on more of it either, in the database as well."""

from django.db import migrations

# What an extension prolongs has a requester of its own.
WHOM_IT_IS_ABOUT = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_own_vote() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_requeststage s JOIN approvals_accessrequest r ON r.id = s.request_id
        LEFT JOIN approvals_grant g ON g.id = r.extends_id
        LEFT JOIN approvals_accessrequest first ON first.id = g.request_id
        WHERE s.id = NEW.stage_id AND ARRAY[NEW.voter_id, NEW.on_behalf_of_id] &&
            ARRAY[r.requester_id, r.beneficiary_id, r.last_edited_by_id, first.requester_id]
    ) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""
ONE_REQUEST_ALONE = r"""
CREATE OR REPLACE FUNCTION approvals_refuse_own_vote() RETURNS trigger LANGUAGE plpgsql
SET search_path = public, pg_temp AS $$
BEGIN
    IF EXISTS (
        SELECT FROM approvals_requeststage s JOIN approvals_accessrequest r ON r.id = s.request_id
        WHERE s.id = NEW.stage_id AND (
            NEW.voter_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id)
            OR NEW.on_behalf_of_id IN (r.requester_id, r.beneficiary_id, r.last_edited_by_id))
    ) THEN
        RAISE EXCEPTION 'nobody decides about themselves' USING ERRCODE = 'check_violation';
    END IF;
    RETURN NEW;
END $$;
"""


class Migration(migrations.Migration):
    dependencies = [("approvals", "0017_notices")]

    operations = [migrations.RunSQL(WHOM_IT_IS_ABOUT, ONE_REQUEST_ALONE)]
