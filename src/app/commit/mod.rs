//! The write path: group commit, retry on conflict, idempotency keys, timeouts.

pub(super) mod approval;
pub(super) mod idempotency;
pub(super) mod queue;
pub(super) mod refusal;
pub(super) mod retry;
pub(super) mod timeout;
