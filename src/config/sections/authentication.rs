//! Client authentication: public keys, or a secret in a file or an environment variable.

use crate::config::{
    document::Location,
    node::{Node, Section},
    sections::secrets::{self, NEW_SECRET_HINT},
};
use crate::domain::{
    encoding::strict_json,
    id::ClientId,
    jose::{
        jwk::{JwkSet, JwsAlgorithm},
        public_key::check_key_set,
    },
    registry::client::{AssertionAudience, Authentication, default_assertion_algorithms},
    secret::Secret,
};

/// A client's secret, if the file names one, and the location that names it.
pub(in crate::config) struct ClientCredentials<'a> {
    pub(in crate::config) client: Option<ClientId>,
    pub(in crate::config) secret: Option<Secret>,
    location: Location<'a>,
}

/// Reads `authentication` of a client, and collects its secret in `credentials`.
pub(in crate::config) fn read_authentication<'a>(
    client: &mut Section<'a>,
    id: Option<&ClientId>,
    credentials: &mut Vec<ClientCredentials<'a>>,
) -> Option<Authentication> {
    let mut section =
        client.required("authentication", "{ method = \"client_secret_basic\" }", |node| node.section())?;
    let method = section.required("method", "\"private_key_jwt\"", |node| {
        let method = node.string()?;
        let known = ["private_key_jwt", "client_secret_basic", "client_secret_post"].contains(&method);
        if !known {
            let remedy = "write `private_key_jwt`, `client_secret_basic` or `client_secret_post`";
            node.error(format_args!("unknown value `{}`", method.escape_debug()), remedy);
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
    let (secret, location) = match section.exclusive(&["secret_file", "secret_env"]) {
        Some(("secret_file", node)) => (read_secret_file(&node), node.location),
        Some((_, node)) => (read_secret_variable(&node), node.location),
        None => (None, section.location.clone()),
    };
    credentials.push(ClientCredentials { client: id.cloned(), secret, location });
    Some(match method {
        "client_secret_post" => Authentication::ClientSecretPost {},
        _ => Authentication::ClientSecretBasic {},
    })
}

/// Reports clients that share a secret: each could authenticate as the other.
pub(in crate::config) fn check_unique_secrets(credentials: &[ClientCredentials<'_>]) {
    for (n, current) in credentials.iter().enumerate() {
        let Some(secret) = &current.secret else { continue };
        let has_same_secret = |other: &&ClientCredentials<'_>| {
            other.secret.as_ref().is_some_and(|theirs| theirs.expose() == secret.expose())
        };
        if let Some(client) = credentials.iter().take(n).find(has_same_secret).and_then(|other| other.client.as_ref()) {
            current.location.error(format_args!("`{client}` has the same secret"), NEW_SECRET_HINT);
        }
    }
}

fn read_private_key_jwt(section: &mut Section<'_>) -> Option<Authentication> {
    let found = section.exclusive(&["jwks_file", "jwks"]);
    let keys = match &found {
        Some(("jwks_file", node)) => read_jwks_file(node),
        Some((_, node)) => read_jwks(node),
        None => {
            section.location.error(
                "the client's keys are missing",
                "name a file with its public keys, for example, `jwks_file = \"planner.jwks.json\"`",
            );
            None
        }
    };
    let algorithms = section.optional("algorithms", |node| {
        let algorithms = node.elements(|item| item.parse_keyword::<JwsAlgorithm>())?;
        if algorithms.is_empty() {
            node.error("is empty", "name at least one algorithm, or leave the key out");
        }
        Some(algorithms)
    });
    let algorithms = algorithms.unwrap_or_else(default_assertion_algorithms);
    let assertion_audience =
        section.optional("assertion_audience", |node| node.parse_keyword::<AssertionAudience>()).unwrap_or_default();
    let jwks = keys?;
    let is_sound = found.is_none_or(|(_, node)| check_public_keys(&node, &jwks, &algorithms));
    is_sound.then_some(Authentication::PrivateKeyJwt { jwks, algorithms, assertion_audience })
}

/// Reads a JWK set from the file that `node` names.
pub(in crate::config) fn read_jwks_file(node: &Node<'_>) -> Option<JwkSet> {
    const MAX_DEPTH: usize = 8;
    let bytes = secrets::read_file(node)?;
    if bytes.trim_ascii_start().starts_with(b"-----BEGIN") {
        node.error("the file is PEM, not a JWK set", "convert the public key to JSON: `{\"keys\": [{\"kty\": …}]}`");
        return None;
    }
    let document = strict_json::parse(&bytes, MAX_DEPTH).map_err(|error| node.error(error, JWKS_HINT)).ok()?;
    JwkSet::try_from(document).map_err(|error| node.error(error, JWKS_HINT)).ok()
}

/// Reads a JWK set in the configuration.
pub(in crate::config) fn read_jwks(node: &Node<'_>) -> Option<JwkSet> {
    node.entries()?;
    JwkSet::try_from(node.to_json()).map_err(|error| node.error(error, JWKS_HINT)).ok()
}

const JWKS_HINT: &str = "write `{\"keys\": [{\"kty\": …}]}` with public keys only";

/// Reports the defects of a key set with which a signer is declared, and returns whether the set
/// has no defect.
pub(in crate::config) fn check_public_keys(node: &Node<'_>, keys: &JwkSet, algorithms: &[JwsAlgorithm]) -> bool {
    let errors = check_key_set(keys, algorithms);
    for error in &errors {
        node.error(error, error.remedy());
    }
    errors.is_empty()
}

fn read_secret_file(node: &Node<'_>) -> Option<Secret> {
    let text = secrets::read_secret(node)?;
    secrets::parse_client_secret(&text).map_err(|reason| node.error(reason, NEW_SECRET_HINT)).ok()
}

fn read_secret_variable(node: &Node<'_>) -> Option<Secret> {
    let name = secrets::read_variable_name(node)?;
    let Some(text) = secrets::read_variable(node.location.document, &name) else {
        node.error(
            format_args!("the environment variable `{name}` is not set"),
            format_args!("set the variable; {NEW_SECRET_HINT}"),
        );
        return None;
    };
    secrets::parse_client_secret(&text)
        .map_err(|reason| node.error(format_args!("`{name}`: {reason}"), NEW_SECRET_HINT))
        .ok()
}
