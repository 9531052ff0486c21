//! Grants over HTTP.

pub(super) mod break_glass;
pub(super) mod consent;
pub(super) mod four_eyes;
