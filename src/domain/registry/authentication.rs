//! How a client authenticates.

use serde::{Deserialize, Serialize};

use crate::domain::jose::jwk::{JwkSet, JwsAlgorithm};

/// How a client proves who it is at our endpoints. One method a client; another one is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Authentication {
    /// A signed assertion (RFC 7523, as 7523bis has it).
    PrivateKeyJwt {
        /// The client's public keys.
        jwks: JwkSet,
        /// The algorithms it may sign with; each key is bound to those that fit it.
        #[serde(default = "default_assertion_algorithms")]
        algorithms: Vec<JwsAlgorithm>,
        /// Which `aud` its assertions may have.
        #[serde(default)]
        assertion_audience: AssertionAudience,
    },
    /// A 256-bit secret that we made, by HTTP Basic (RFC 6749 §2.3.1). Its tag is kept apart.
    ClientSecretBasic {},
}

impl Authentication {
    /// The name of the method in RFC 8414 metadata.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::ClientSecretBasic {} => "client_secret_basic",
        }
    }
}

/// What a client may sign its assertions with when its entry does not say.
#[must_use]
pub fn default_assertion_algorithms() -> Vec<JwsAlgorithm> {
    vec![JwsAlgorithm::ES256, JwsAlgorithm::EdDSA, JwsAlgorithm::RS256, JwsAlgorithm::PS256]
}

/// Which `aud` a client assertion may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// Our issuer, as the sole string (RFC 7523bis).
    #[default]
    Issuer,
    /// The token endpoint's URL as well: for libraries that can't do better, such as Authlib.
    TokenEndpointToo,
}
