//! The requester: the human on whose behalf a task is done.

use serde::{Deserialize, Serialize};

use crate::domain::{id::Subject, uri::IssuerUrl};

/// The human on whose behalf: an issuer and its subject, prefix included.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Requester {
    /// The identity provider that vouches for them.
    pub issuer: IssuerUrl,
    /// Who they are, unique among all issuers.
    pub subject: Subject,
}
