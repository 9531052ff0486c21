//! Client authentication methods.

use serde::{Deserialize, Serialize};

use crate::domain::jose::jwk::{JwkSet, JwsAlgorithm};

/// The authentication method of a client at this server's endpoints. Each client has one; others
/// are rejected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum Authentication {
    /// A signed assertion (RFC 7523, as updated by rfc7523bis).
    PrivateKeyJwt {
        /// The client's public keys.
        jwks: JwkSet,
        /// The permitted algorithms. Each key is bound to the algorithms that fit it.
        #[serde(default = "default_assertion_algorithms")]
        algorithms: Vec<JwsAlgorithm>,
        /// The `aud` values that its assertions may have.
        #[serde(default)]
        assertion_audience: AssertionAudience,
    },
    /// A 256-bit secret issued by this server, sent by HTTP Basic (RFC 6749 §2.3.1). Its tag is
    /// stored separately.
    ClientSecretBasic {},
    /// The same kind of secret, sent in the body (RFC 6749 §2.3.1): for libraries that support
    /// nothing else. Bodies are logged more often than credentials in headers.
    ClientSecretPost {},
}

impl Authentication {
    /// Returns the name of the method in RFC 8414 metadata.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::PrivateKeyJwt { .. } => "private_key_jwt",
            Self::ClientSecretBasic {} => "client_secret_basic",
            Self::ClientSecretPost {} => "client_secret_post",
        }
    }

    /// Returns whether the client authenticates with a secret.
    #[must_use]
    pub fn uses_secret(&self) -> bool {
        match self {
            Self::PrivateKeyJwt { .. } => false,
            Self::ClientSecretBasic {} | Self::ClientSecretPost {} => true,
        }
    }
}

/// Returns the assertion algorithms of a client whose entry names none.
#[must_use]
pub fn default_assertion_algorithms() -> Vec<JwsAlgorithm> {
    vec![JwsAlgorithm::ES256, JwsAlgorithm::EdDSA, JwsAlgorithm::RS256, JwsAlgorithm::PS256]
}

/// The `aud` values that a client assertion may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AssertionAudience {
    /// This server's issuer identifier, as a single string (rfc7523bis).
    #[default]
    Issuer,
    /// Also the URL of the token endpoint, for libraries that support nothing else, such as
    /// Authlib.
    TokenEndpointToo,
}
