//! How a client proves who it is: its public keys, or a secret that is kept elsewhere.

use serde_json::{Map, Value};

use super::{
    reader::{At, Place, Section},
    secrets::{self, NEW_SECRET},
};
use crate::domain::{
    client::{AssertionAudience, Authentication, assertion_algorithms},
    id::ClientId,
    json,
    jwk::{JwkSet, JwsAlgorithm},
    secret::Secret,
};

/// A client's secret, if it has one here, and where it was named.
pub(super) struct Proof<'a> {
    pub(super) client: Option<ClientId>,
    pub(super) secret: Option<Secret>,
    here: Place<'a>,
}

pub(super) fn read<'a>(
    client: &mut Section<'a>,
    id: Option<&ClientId>,
    proofs: &mut Vec<Proof<'a>>,
) -> Option<Authentication> {
    let mut section = client.must("authentication", "{ method = \"client_secret_basic\" }", |at| at.section())?;
    let method = section.must("method", "\"private_key_jwt\"", |at| {
        let method = at.text()?;
        let known = ["private_key_jwt", "client_secret_basic"].contains(&method);
        if !known {
            let remedy = "write `private_key_jwt` or `client_secret_basic`";
            at.wrong(format_args!("`{}` is not known here", method.escape_debug()), remedy);
        }
        known.then_some(method)
    });
    let Some(method) = method else {
        section.forgive();
        return None;
    };
    if method == "private_key_jwt" {
        return private_key_jwt(&mut section);
    }
    let (secret, here) = match section.one_of(&["secret_file", "secret_env"]) {
        Some(("secret_file", at)) => (secret_from_file(&at), at.here),
        Some((_, at)) => (secret_from_environment(&at), at.here),
        None => (None, section.here.clone()),
    };
    proofs.push(Proof { client: id.cloned(), secret, here });
    Some(Authentication::ClientSecretBasic {})
}

/// Tells of clients with one secret: each could be the other.
pub(super) fn check_secrets(proofs: &[Proof<'_>]) {
    for (n, proof) in proofs.iter().enumerate() {
        let Some(secret) = &proof.secret else { continue };
        let same = |other: &&Proof<'_>| other.secret.as_ref().is_some_and(|theirs| theirs.expose() == secret.expose());
        if let Some(client) = proofs.iter().take(n).find(same).and_then(|other| other.client.as_ref()) {
            proof.here.wrong(format_args!("`{client}` has the same secret"), NEW_SECRET);
        }
    }
}

fn private_key_jwt(section: &mut Section<'_>) -> Option<Authentication> {
    let found = section.one_of(&["jwks_file", "jwks"]);
    let keys = match &found {
        Some(("jwks_file", at)) => jwks_file(at),
        Some((_, at)) => jwks(at),
        None => {
            section.here.wrong(
                "the client's keys are missing",
                "name a file with its public keys, such as `jwks_file = \"planner.jwks.json\"`",
            );
            None
        }
    };
    let algorithms = section.read("algorithms", |at| {
        let algorithms = at.each(|item| item.word::<JwsAlgorithm>())?;
        if algorithms.is_empty() {
            at.wrong("is empty", "name at least one, or leave the key out");
        }
        Some(algorithms)
    });
    let algorithms = algorithms.unwrap_or_else(assertion_algorithms);
    let assertion_audience =
        section.read("assertion_audience", |at| at.word::<AssertionAudience>()).unwrap_or_default();
    let jwks = keys?;
    if let Some((_, at)) = found.filter(|_| !jwks.keys().any(|key| key_fits(key, &algorithms))) {
        at.wrong("no key of it fits the client's `algorithms`", "name in `algorithms` what the keys are for");
    }
    Some(Authentication::PrivateKeyJwt { jwks, algorithms, assertion_audience })
}

/// A JWK set in a file of its own.
pub(super) fn jwks_file(at: &At<'_>) -> Option<JwkSet> {
    const DEPTH: usize = 8;
    let bytes = secrets::read(at)?;
    let document = json::parse(&bytes, DEPTH).map_err(|fault| at.wrong(fault, JWKS)).ok()?;
    JwkSet::try_from(document).map_err(|fault| at.wrong(fault, JWKS)).ok()
}

/// A JWK set in the configuration.
pub(super) fn jwks(at: &At<'_>) -> Option<JwkSet> {
    JwkSet::try_from(at.json()).map_err(|fault| at.wrong(fault, JWKS)).ok()
}

const JWKS: &str = "write `{\"keys\": [{\"kty\": …}]}` with the public keys only";

/// Whether a public key can verify one of these algorithms, by what it says about itself (RFC 7517 §4, RFC 7518 §6).
pub(super) fn key_fits(key: &Map<String, Value>, algorithms: &[JwsAlgorithm]) -> bool {
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

fn secret_from_file(at: &At<'_>) -> Option<Secret> {
    let text = secrets::read_secret(at)?;
    secrets::client_secret(&text).map_err(|reason| at.wrong(reason, NEW_SECRET)).ok()
}

fn secret_from_environment(at: &At<'_>) -> Option<Secret> {
    let name = secrets::variable_name(at)?;
    let Some(text) = secrets::variable(at.here.document, &name) else {
        at.wrong(format_args!("the variable `{name}` is not set"), format_args!("set it; {NEW_SECRET}"));
        return None;
    };
    secrets::client_secret(&text).map_err(|reason| at.wrong(format_args!("`{name}`: {reason}"), NEW_SECRET)).ok()
}
