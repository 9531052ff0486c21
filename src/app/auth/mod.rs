//! Authentication of callers: OAuth clients, API tokens, requesters.

pub(super) mod api_token;
pub(super) mod client;
pub(super) mod issued_token;
pub(super) mod replays;
pub(super) mod requester;
