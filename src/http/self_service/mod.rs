//! APIs for requesters, agents and resources: `/v1/tasks`, `/v1/grants`.

pub(super) mod calls;
pub(super) mod grants;
pub(super) mod tasks;
