-- What is not forgotten of the log is found by the hours in which it will be, there are few, and in each of them in the order
-- of the log, which is that of the row ids: a reader that passes over what is forgotten never sees it, however much there is.

CREATE INDEX revocation_log_by_hour ON revocation_log (forget_after / 3600);
DROP INDEX revocation_log_by_forget_after;
