//! Revocation over HTTP.

pub(super) mod agreement;
pub(super) mod all_agents;
pub(super) mod blocking;
pub(super) mod bulk;
pub(super) mod feed;
pub(super) mod revocation_load;
pub(super) mod revocation_race;
pub(super) mod single_target;
pub(super) mod status_lists;
