//! Admins.

use serde::{Deserialize, Serialize};

use super::authentication::Authentication;
use crate::domain::id::ClientId;

/// Somebody, or something, that runs Errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Its client id.
    pub id: ClientId,
    /// What it may do.
    pub role: Role,
    /// How it proves who it is.
    pub authentication: Authentication,
    /// Whether it is shut out.
    #[serde(default)]
    pub disabled: bool,
}

/// What an admin may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Changes the registry, revokes, rotates keys; reads everything.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
}
