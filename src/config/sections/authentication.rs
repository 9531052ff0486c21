//! How a client proves who it is: its public keys, or a secret that is kept elsewhere.

use serde_json::{Map, Value};

use crate::config::{
    node::{Location, Node, Section},
    sections::secrets::{self, NEW_SECRET_HINT},
};
use crate::domain::{
    encoding::strict_json,
    id::ClientId,
    jose::jwk::{JwkSet, JwsAlgorithm},
    registry::client::{AssertionAudience, Authentication, default_assertion_algorithms},
    secret::Secret,
};

/// A client's secret, if it has one here, and where it was named.
pub(in crate::config) struct ClientCredentials<'a> {
    pub(in crate::config) client: Option<ClientId>,
    pub(in crate::config) secret: Option<Secret>,
    location: Location<'a>,
}

pub(in crate::config) fn read_authentication<'a>(
    client: &mut Section<'a>,
    id: Option<&ClientId>,
    proofs: &mut Vec<ClientCredentials<'a>>,
) -> Option<Authentication> {
    let mut section = client.required("authentication", "{ method = \"client_secret_basic\" }", |at| at.section())?;
    let method = section.required("method", "\"private_key_jwt\"", |at| {
        let method = at.string()?;
        let known = ["private_key_jwt", "client_secret_basic"].contains(&method);
        if !known {
            let remedy = "write `private_key_jwt` or `client_secret_basic`";
            at.error(format_args!("`{}` is not known here", method.escape_debug()), remedy);
        }
        known.then_some(method)
    });
    let Some(method) = method else {
        section.ignore_unknown_keys();
        return None;
    };
    if method == "private_key_jwt" {
        return read_private_key_jwt(&mut section);
    }
    let (secret, here) = match section.exclusive(&["secret_file", "secret_env"]) {
        Some(("secret_file", at)) => (read_secret_file(&at), at.location),
        Some((_, at)) => (read_secret_variable(&at), at.location),
        None => (None, section.location.clone()),
    };
    proofs.push(ClientCredentials { client: id.cloned(), secret, location: here });
    Some(Authentication::ClientSecretBasic {})
}

/// Tells of clients with one secret: each could be the other.
pub(in crate::config) fn check_unique_secrets(proofs: &[ClientCredentials<'_>]) {
    for (n, proof) in proofs.iter().enumerate() {
        let Some(secret) = &proof.secret else { continue };
        let same = |other: &&ClientCredentials<'_>| {
            other.secret.as_ref().is_some_and(|theirs| theirs.expose() == secret.expose())
        };
        if let Some(client) = proofs.iter().take(n).find(same).and_then(|other| other.client.as_ref()) {
            proof.location.error(format_args!("`{client}` has the same secret"), NEW_SECRET_HINT);
        }
    }
}

fn read_private_key_jwt(section: &mut Section<'_>) -> Option<Authentication> {
    let found = section.exclusive(&["jwks_file", "jwks"]);
    let keys = match &found {
        Some(("jwks_file", at)) => read_jwks_file(at),
        Some((_, at)) => read_jwks(at),
        None => {
            section.location.error(
                "the client's keys are missing",
                "name a file with its public keys, such as `jwks_file = \"planner.jwks.json\"`",
            );
            None
        }
    };
    let algorithms = section.optional("algorithms", |at| {
        let algorithms = at.elements(|item| item.parse_keyword::<JwsAlgorithm>())?;
        if algorithms.is_empty() {
            at.error("is empty", "name at least one, or leave the key out");
        }
        Some(algorithms)
    });
    let algorithms = algorithms.unwrap_or_else(default_assertion_algorithms);
    let assertion_audience =
        section.optional("assertion_audience", |at| at.parse_keyword::<AssertionAudience>()).unwrap_or_default();
    let jwks = keys?;
    if let Some((_, at)) = found.filter(|_| !jwks.keys().any(|key| is_compatible_key(key, &algorithms))) {
        at.error("no key of it fits the client's `algorithms`", "name in `algorithms` what the keys are for");
    }
    Some(Authentication::PrivateKeyJwt { jwks, algorithms, assertion_audience })
}

/// A JWK set in a file of its own.
pub(in crate::config) fn read_jwks_file(at: &Node<'_>) -> Option<JwkSet> {
    const MAX_DEPTH: usize = 8;
    let bytes = secrets::read_file(at)?;
    let document = strict_json::parse(&bytes, MAX_DEPTH).map_err(|fault| at.error(fault, JWKS_HINT)).ok()?;
    JwkSet::try_from(document).map_err(|fault| at.error(fault, JWKS_HINT)).ok()
}

/// A JWK set in the configuration.
pub(in crate::config) fn read_jwks(at: &Node<'_>) -> Option<JwkSet> {
    JwkSet::try_from(at.to_json()).map_err(|fault| at.error(fault, JWKS_HINT)).ok()
}

const JWKS_HINT: &str = "write `{\"keys\": [{\"kty\": …}]}` with the public keys only";

/// Whether a public key can verify one of these algorithms, by what it says about itself (RFC 7517 §4, RFC 7518 §6).
pub(in crate::config) fn is_compatible_key(key: &Map<String, Value>, algorithms: &[JwsAlgorithm]) -> bool {
    use JwsAlgorithm as A;
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let by_type: &[A] = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => &[A::RS256, A::RS384, A::RS512, A::PS256, A::PS384, A::PS512],
        (Some("EC"), Some("P-256")) => &[A::ES256],
        (Some("EC"), Some("P-384")) => &[A::ES384],
        (Some("EC"), Some("P-521")) => &[A::ES512],
        (Some("OKP"), Some("Ed25519")) => &[A::EdDSA],
        _ => &[],
    };
    let named = text("alg").map(A::parse);
    let fits = |alg: &A| by_type.contains(alg) && named.is_none_or(|named| named == Some(*alg));
    text("use") != Some("enc") && algorithms.iter().any(fits)
}

fn read_secret_file(at: &Node<'_>) -> Option<Secret> {
    let text = secrets::read_secret(at)?;
    secrets::parse_client_secret(&text).map_err(|reason| at.error(reason, NEW_SECRET_HINT)).ok()
}

fn read_secret_variable(at: &Node<'_>) -> Option<Secret> {
    let name = secrets::read_variable_name(at)?;
    let Some(text) = secrets::read_variable(at.location.document, &name) else {
        at.error(format_args!("the variable `{name}` is not set"), format_args!("set it; {NEW_SECRET_HINT}"));
        return None;
    };
    secrets::parse_client_secret(&text)
        .map_err(|reason| at.error(format_args!("`{name}`: {reason}"), NEW_SECRET_HINT))
        .ok()
}
