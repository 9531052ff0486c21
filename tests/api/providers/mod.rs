//! Tokens, key sets and metadata as identity providers send them.

pub(super) mod client_secrets;
pub(super) mod key_withdrawal;
pub(super) mod provider;
pub(super) mod targets;
pub(super) mod token_shapes;
