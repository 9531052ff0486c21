//! The administration API: `/v1/admin/…`.

pub(super) mod break_glass;
pub(super) mod catalogue;
pub(super) mod grants;
pub(super) mod registry;
pub(super) mod replicas;
pub(super) mod revocations;
pub(super) mod tasks;
