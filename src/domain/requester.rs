//! The requester: the human on whose behalf agents act.

use serde::{Deserialize, Serialize};

use crate::domain::{id::Subject, uri::IssuerUrl};

/// A human on whose behalf agents act: issuer and subject, including the issuer's subject prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requester {
    /// The identity provider that authenticated the requester.
    pub issuer: IssuerUrl,
    /// The subject, unique across all issuers.
    pub subject: Subject,
}
