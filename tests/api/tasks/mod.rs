//! Tasks over HTTP.

pub(super) mod call_reports;
pub(super) mod requester_self_service;
pub(super) mod task_lifecycle;
pub(super) mod tasks;
