//! Tasks over HTTP.

pub(super) mod call_reports;
pub(super) mod ended_evidence;
pub(super) mod joining;
pub(super) mod requester_self_service;
pub(super) mod task_lifecycle;
