//! The administration API: `/v1/admin/…`.

pub(super) mod approvals;
pub(super) mod audit;
pub(super) mod blocks;
pub(super) mod break_glass;
pub(super) mod catalogue;
pub(super) mod grants;
pub(super) mod issuer_keys;
pub(super) mod keys;
pub(super) mod registry;
pub(super) mod replicas;
pub(super) mod revocations;
pub(super) mod secrets;
pub(super) mod tasks;
pub(super) mod tokens;
