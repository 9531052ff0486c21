//! The identity provider of `errand serve --dev`: a key in a file, without a service. It issues
//! user tokens for the command line.

use std::{fs, path::Path};

use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{
    domain::{
        decode_base64url, encode_base64url,
        time::{Lifetime, Timestamp},
    },
    ports::Outage,
};

/// The file with the private key (a JWK) in the development folder.
pub const PRIVATE_KEY_FILE: &str = "idp.private.json";
/// The file with the URL of the server for which tokens are issued.
pub const SERVER_FILE: &str = "idp.server";

/// The claims of a user token.
#[derive(Clone, Copy, Debug)]
pub struct UserTokenClaims<'a> {
    /// The user.
    pub sub: &'a str,
    /// The scope, separated by spaces. A token without scope grants no access.
    pub scope: Option<&'a str>,
    /// The client at which the user signed in: the agent.
    pub client: &'a str,
}

/// Issues a user token (RFC 9068) that the server with this folder accepts for an hour.
pub fn issue_user_token(folder: &Path, user: UserTokenClaims<'_>, now: Timestamp, jti: Uuid) -> Result<String, Outage> {
    let read =
        |name| fs::read_to_string(folder.join(name)).map_err(Outage::during("read the folder of `errand serve --dev`"));
    let server = read(SERVER_FILE)?;
    let (jwk, pair) = parse_key(&Zeroizing::new(read(PRIVATE_KEY_FILE)?))?;
    let claims = AccessTokenClaims {
        iss: &format!("{}/dev-idp", server.trim()),
        aud: server.trim(),
        sub: user.sub,
        client_id: user.client,
        iat: now,
        exp: now.saturating_add(Lifetime::hours(1)),
        jti,
        auth_time: now,
        amr: ["pwd"],
        scope: user.scope,
    };
    let header = UserTokenHeader { alg: "ES256", typ: "at+jwt", kid: &jwk.kid };
    let input = format!("{}.{}", encode_part(&header)?, encode_part(&claims)?);
    let signature = pair.sign(&system_random(), input.as_bytes()).map_err(|_| ring_outage("sign"))?;
    Ok(format!("{input}.{}", encode_base64url(signature.as_ref())))
}

/// Generates a private key, as a JWK.
pub fn generate_key() -> Result<Zeroizing<String>, Outage> {
    // ring writes keys as PKCS #8 only, in this one form (RFC 5208, RFC 5915): the scalar begins
    // after 36 bytes.
    const SCALAR_OFFSET: usize = 36;
    let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &system_random())
        .map_err(|_| ring_outage("generate a key"))?;
    let document = Zeroizing::new(document.as_ref().to_vec());
    let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &document, &system_random());
    let pair = pair.map_err(|_| ring_outage("read the new key"))?;
    let scalar = document.get(SCALAR_OFFSET..SCALAR_OFFSET + 32).ok_or_else(|| ring_outage("read the new key"))?;
    let point = pair.public_key().as_ref().get(1..).and_then(|point| point.split_at_checked(32));
    let (x, y) = point.ok_or_else(|| ring_outage("read the new key"))?;
    let jwk = Jwk {
        kty: "EC".into(),
        crv: "P-256".into(),
        x: encode_base64url(x),
        y: encode_base64url(y),
        d: Some(encode_base64url(scalar)),
        kid: "dev-idp".into(),
        alg: "ES256".into(),
    };
    let text = serde_json::to_string(&jwk).map(Zeroizing::new).map_err(Outage::during("write the new key"))?;
    parse_key(&text)?;
    Ok(text)
}

/// Returns the public key of a private JWK, as a JWK set.
pub fn public_jwks(private: &str) -> Result<String, Outage> {
    let (jwk, _) = parse_key(private)?;
    let keys = [Jwk { d: None, ..jwk }];
    serde_json::to_string(&PublicJwks { keys }).map_err(Outage::during("write the public key"))
}

fn parse_key(text: &str) -> Result<(Jwk, EcdsaKeyPair), Outage> {
    let jwk =
        serde_json::from_str::<Jwk>(text).map_err(|_| ring_outage("read the key of the dev identity provider"))?;
    let bytes =
        |text: &str| decode_base64url(text).ok_or_else(|| ring_outage("read the key of the dev identity provider"));
    let scalar = Zeroizing::new(bytes(jwk.d.as_deref().unwrap_or_default())?);
    let point = [vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat();
    let pair = EcdsaKeyPair::from_private_key_and_public_key(
        &ECDSA_P256_SHA256_FIXED_SIGNING,
        &scalar,
        &point,
        &system_random(),
    );
    Ok((jwk, pair.map_err(|_| ring_outage("read the key of the dev identity provider"))?))
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    d: Option<String>,
    kid: String,
    alg: String,
}

#[derive(Serialize)]
struct PublicJwks {
    keys: [Jwk; 1],
}

#[derive(Serialize)]
struct UserTokenHeader<'a> {
    alg: &'a str,
    typ: &'a str,
    kid: &'a str,
}

#[derive(Serialize)]
struct AccessTokenClaims<'a> {
    iss: &'a str,
    aud: &'a str,
    sub: &'a str,
    client_id: &'a str,
    iat: Timestamp,
    exp: Timestamp,
    jti: Uuid,
    auth_time: Timestamp,
    amr: [&'a str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'a str>,
}

fn encode_part(json: &impl Serialize) -> Result<String, Outage> {
    serde_json::to_vec(json).map(|json| encode_base64url(&json)).map_err(Outage::during("write the token"))
}

#[expect(clippy::disallowed_methods, reason = "ring accepts only its own entropy source for keys and signatures")]
fn system_random() -> SystemRandom {
    SystemRandom::new()
}

/// Returns an outage without a cause: ring deliberately gives none.
fn ring_outage(operation: &'static str) -> Outage {
    Outage { operation, source: "ring rejected the operation".into() }
}

#[cfg(test)]
mod tests {
    use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};

    use super::*;
    use crate::domain::jose::{jwk::JwkSet, jws::UnverifiedJws};

    #[test]
    fn user_token_verifies_with_published_key() {
        let folder = tempfile::tempdir().unwrap();
        let private = generate_key().unwrap();
        fs::write(folder.path().join(PRIVATE_KEY_FILE), private.as_bytes()).unwrap();
        fs::write(folder.path().join(SERVER_FILE), "http://127.0.0.1:8080\n").unwrap();
        let user = UserTokenClaims { sub: "alice", scope: Some("files:read"), client: "planner" };
        let token = issue_user_token(folder.path(), user, Timestamp::from_unix(1_795_200_000), Uuid::nil()).unwrap();
        let token = UnverifiedJws::parse(&token).unwrap();

        let public = public_jwks(&private).unwrap();
        let keys = JwkSet::try_from(serde_json::from_str::<serde_json::Value>(&public).unwrap()).unwrap();
        let key = keys.keys().next().unwrap();
        let coordinate = |name: &str| decode_base64url(key[name].as_str().unwrap()).unwrap();
        let point = [vec![4], coordinate("x"), coordinate("y")].concat();
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
        key.verify(token.signing_input(), token.signature()).unwrap();
        assert_eq!((token.header().typ.as_deref(), token.header().kid.as_deref()), (Some("at+jwt"), Some("dev-idp")));
        let claims = serde_json::to_string(&token.into_payload()).unwrap();
        assert_eq!(
            claims,
            r#"{"iss":"http://127.0.0.1:8080/dev-idp","aud":"http://127.0.0.1:8080","sub":"alice","client_id":"planner","iat":1795200000,"exp":1795203600,"jti":"00000000-0000-0000-0000-000000000000","auth_time":1795200000,"amr":["pwd"],"scope":"files:read"}"#
        );
    }
}
