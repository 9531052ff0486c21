-- What is not forgotten of the log is found by the hours in which it will be, there are few, and in each of them in the order
-- of the log: a reader that passes over what is forgotten never sees it, however much there is. As an expression, the place
-- is found by this index alone: along the primary key a walk would lead over all that is forgotten.

CREATE INDEX revocation_log_by_hour ON revocation_log ((forget_after / 3600), (seq + 0));
DROP INDEX revocation_log_by_forget_after;
