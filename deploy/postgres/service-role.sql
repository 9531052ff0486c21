-- The rights of the role with which Errand serves. The role that runs `errand migrate` owns the
-- tables and grants these rights after each migration:
--
--   psql --set=service=errand --file=service-role.sql DATABASE
--
-- The service appends to the audit trail and the revocation log, and can neither change nor remove
-- what is in them. It has no right to change the schema.

GRANT USAGE ON SCHEMA public TO :"service";
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO :"service";
REVOKE UPDATE, DELETE ON audit, audit_agents, audit_checkpoints, revocation_log FROM :"service";
REVOKE INSERT, UPDATE, DELETE ON _sqlx_migrations FROM :"service";
