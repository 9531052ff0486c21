//! Admins: clients that operate the server.

use serde::{Deserialize, Serialize};

use super::authentication::Authentication;
use crate::domain::id::ClientId;

/// A person or program that operates Errand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The client id.
    pub id: ClientId,
    /// The role.
    pub role: Role,
    /// The authentication method.
    pub authentication: Authentication,
    /// Whether the admin is blocked.
    #[serde(default)]
    pub disabled: bool,
}

/// The permissions of an admin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Changes the registry, revokes, rotates keys, and reads everything.
    Operator,
    /// Reads everything and changes nothing.
    Auditor,
}
