//! Claims of tokens that other parties signed: bounded parsing and validation. A missing claim is
//! an error.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{
    id::{ClientId, Subject},
    registry::issuer::{OtherAudiences, SubjectTokenType, TrustedIssuer},
    requester::Requester,
    scope::{ScopeSet, ScopeToken},
    settings::MAX_CLOCK_SKEW,
    time::{Lifetime, Timestamp},
    token::actor_chain::{Actor, ActorChain},
};

/// The rule that the claims of a token violate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// The claim is missing.
    #[error("the claim `{0}` is missing")]
    Missing(&'static str),
    /// The claim has the wrong type or format.
    #[error("the claim `{0}` is malformed")]
    Malformed(&'static str),
    /// `aud` does not identify this server, or contains other values too.
    #[error("`aud` does not identify this server, or names another audience too")]
    InvalidAudience,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The lifetime exceeds the maximum.
    #[error("the token lifetime exceeds the accepted maximum")]
    LifetimeTooLong,
    /// The subject could be confused with a subject of another issuer.
    #[error("the subject begins with the prefix of another issuer")]
    ForeignSubjectPrefix,
    /// The token is a security event.
    #[error("the token is a security event (`events`), not a user token")]
    SecurityEvent,
    /// A token presented as an access token has a claim that only ID tokens have.
    #[error("the claim `{0}` marks an ID token, which is not an access token")]
    IdTokenClaim(&'static str),
    /// `iss` or `sub` of an assertion is not the client.
    #[error("`iss` and `sub` of the assertion must both be the client id")]
    ClientMismatch,
}

/// The claims that only ID tokens have.
const ID_TOKEN_CLAIMS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// Reads a NumericDate (RFC 7519 §2), restricted to whole seconds between 1970 and 9999.
fn read_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, ClaimError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().filter(|s| *s >= 0 && *s <= Timestamp::MAX.unix());
    seconds.map(|s| Some(Timestamp::from_unix(s))).ok_or(ClaimError::Malformed(name))
}

fn read_text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ClaimError> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= 1024 && !text.chars().any(char::is_control) => Ok(Some(text)),
        Some(_) => Err(ClaimError::Malformed(name)),
    }
}

/// Reads `aud` (RFC 7519 §4.1.3): a string or an array of strings, never empty.
fn read_audiences(claims: &Map<String, Value>) -> Result<Vec<String>, ClaimError> {
    let strings = match claims.get("aud") {
        None => return Err(ClaimError::Missing("aud")),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or(ClaimError::Malformed("aud"))?,
        Some(_) => return Err(ClaimError::Malformed("aud")),
    };
    if strings.is_empty() || strings.iter().any(String::is_empty) {
        return Err(ClaimError::Malformed("aud"));
    }
    Ok(strings)
}

/// Checks the dates of a token: not expired, and not issued in the future beyond the leeway.
/// Returns (`iat`, `exp`).
fn check_lifetime(
    claims: &Map<String, Value>,
    now: Timestamp,
    leeway: Lifetime,
) -> Result<(Option<Timestamp>, Timestamp), ClaimError> {
    let exp = read_date(claims, "exp")?.ok_or(ClaimError::Missing("exp"))?;
    let (iat, nbf) = (read_date(claims, "iat")?, read_date(claims, "nbf")?);
    if exp.saturating_add(leeway).has_passed(now) {
        return Err(ClaimError::Expired);
    }
    let ahead = |at: Option<Timestamp>| at.is_some_and(|at| at > now.saturating_add(leeway));
    if ahead(iat) || ahead(nbf) {
        return Err(ClaimError::NotYetValid);
    }
    Ok((iat, exp))
}

/// The validated claims of a user token.
#[derive(Clone, Debug)]
pub struct UserClaims {
    /// The requester.
    pub requester: Requester,
    /// The `aud` values.
    pub audiences: Vec<String>,
    /// The expiry.
    pub expires: Timestamp,
    /// The client to which it was issued (`client_id` or `azp`), as the issuer names it.
    pub client: Option<String>,
    /// `may_act`: the one party that may act for the requester.
    pub may_act: Option<MayAct>,
    /// Whether the token is bound to a key (`cnf`, RFC 7800), so that only the holder of the key
    /// may use it.
    pub is_key_bound: bool,
    /// The scope; `None` if absent.
    pub scope: Option<ScopeSet>,
    /// The prior actors, according to the issuer.
    pub chain: Option<ActorChain>,
    /// How and when the requester authenticated; passed on unchanged.
    pub auth_context: AuthenticationContext,
    /// All claims, for entitlement rules.
    pub raw_claims: Map<String, Value>,
}

impl UserClaims {
    /// Returns whether the token was issued to a portal of the issuer for the requester alone. No
    /// actor is or may be involved, and the token is not bound to a key, because this server does
    /// not verify proof of possession.
    #[must_use]
    pub fn is_issued_to_portal(&self, issuer: &TrustedIssuer) -> bool {
        let by_portal = self.client.as_ref().is_some_and(|client| issuer.portal_clients.contains(client));
        by_portal && self.may_act.is_none() && self.chain.is_none() && !self.is_key_bound
    }
}

/// `may_act` (RFC 8693 §4.4): the party that may act. Without `iss`, `sub` is a name given by the
/// token's issuer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayAct {
    /// The namespace of `sub`.
    pub iss: Option<String>,
    /// The party.
    pub sub: String,
}

/// How and when the requester authenticated (RFC 9068 §2.2.1). An exchange never refreshes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationContext {
    /// The time of authentication.
    pub auth_time: Option<Timestamp>,
    /// The authentication context class.
    pub acr: Option<String>,
    /// The authentication methods.
    pub amr: Option<Vec<String>>,
}

/// The rules for a user token.
#[derive(Clone, Debug)]
pub struct UserTokenRules<'a> {
    /// The issuer that signed it.
    pub issuer: &'a TrustedIssuer,
    /// The kind of token, which its `typ` matches.
    pub kind: SubjectTokenType,
    /// The client ids by which the issuer knows the agent. An ID token's `aud` must be one of them.
    pub agent_client_ids: &'a [String],
    /// The subject prefixes of all other issuers.
    pub foreign_prefixes: Vec<&'a str>,
    /// The tolerance for the issuer's clock.
    pub leeway: Lifetime,
}

/// Validates the claims of a user token whose signature was verified.
pub fn check_user_claims(
    claims: Map<String, Value>,
    rules: &UserTokenRules<'_>,
    now: Timestamp,
) -> Result<UserClaims, ClaimError> {
    let issuer = rules.issuer;
    if read_text(&claims, "iss")?.ok_or(ClaimError::Missing("iss"))? != issuer.issuer.as_str() {
        return Err(ClaimError::Malformed("iss"));
    }
    // RFC 8417: a security event, such as a logout token, is addressed like an ID token and has the
    // opposite meaning.
    if claims.contains_key("events") {
        return Err(ClaimError::SecurityEvent);
    }
    // OpenID Connect Core §2, §3.1.3.6 and §3.3.2.11: these claims bind an ID token to its sign-in.
    let is_access = matches!(rules.kind, SubjectTokenType::AccessToken | SubjectTokenType::Jwt);
    let has = |claim: &&str| claims.get(*claim).is_some_and(|value| !value.is_null());
    if let Some(claim) = ID_TOKEN_CLAIMS.into_iter().find(has).filter(|_| is_access) {
        return Err(ClaimError::IdTokenClaim(claim));
    }
    let (iat, expires) = check_lifetime(&claims, now, rules.leeway)?;
    iat.ok_or(ClaimError::Missing("iat"))?;
    // The leeway tolerates clock differences. It does not permit tokens from expired ones, which
    // the transaction token draft forbids.
    if expires.has_passed(now) {
        return Err(ClaimError::Expired);
    }
    let audiences = read_audiences(&claims)?;
    let accepted = match rules.kind {
        SubjectTokenType::AccessToken | SubjectTokenType::Jwt => &issuer.audiences[..],
        SubjectTokenType::IdToken => rules.agent_client_ids,
    };
    let is_accepted = |aud: &String| accepted.contains(aud);
    let acceptable = match issuer.other_audiences {
        OtherAudiences::Refuse => audiences.len() == 1 && audiences.iter().all(is_accepted),
        OtherAudiences::Accept => audiences.iter().any(is_accepted),
    };
    if !acceptable {
        return Err(ClaimError::InvalidAudience);
    }
    if rules.kind == SubjectTokenType::AccessToken {
        // RFC 9068 §2.2 requires these claims in an at+jwt access token.
        read_text(&claims, "client_id")?.ok_or(ClaimError::Missing("client_id"))?;
        read_text(&claims, "jti")?.ok_or(ClaimError::Missing("jti"))?;
    }
    let sub = read_text(&claims, "sub")?.ok_or(ClaimError::Missing("sub"))?;
    if sub.is_empty() {
        return Err(ClaimError::Malformed("sub"));
    }
    // The complete name must not begin with another issuer's prefix. After a prefix of its own,
    // `sub` may begin with anything.
    let name = format!("{}{sub}", issuer.subject_prefix.as_deref().unwrap_or_default());
    if rules.foreign_prefixes.iter().any(|prefix| !prefix.is_empty() && name.starts_with(prefix)) {
        return Err(ClaimError::ForeignSubjectPrefix);
    }
    let subject = name.parse::<Subject>().map_err(|_| ClaimError::Malformed("sub"))?;
    Ok(UserClaims {
        requester: Requester { issuer: issuer.issuer.clone(), subject },
        audiences,
        expires,
        client: read_client(&claims, issuer)?,
        may_act: read_may_act(&claims)?,
        is_key_bound: claims.contains_key("cnf"),
        scope: read_scope(&claims, issuer)?,
        chain: read_actor_chain(&claims)?,
        auth_context: read_auth_context(&claims)?,
        raw_claims: claims,
    })
}

fn read_client(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<String>, ClaimError> {
    for name in &issuer.claims.client {
        match claims.get(name) {
            None => {}
            Some(Value::String(client)) => return Ok(Some(client.clone())),
            Some(_) => return Err(ClaimError::Malformed("client_id")),
        }
    }
    Ok(None)
}

fn read_may_act(claims: &Map<String, Value>) -> Result<Option<MayAct>, ClaimError> {
    let Some(value) = claims.get("may_act") else { return Ok(None) };
    let object = value.as_object().ok_or(ClaimError::Malformed("may_act"))?;
    let sub = read_text(object, "sub").ok().flatten().ok_or(ClaimError::Malformed("may_act"))?.to_owned();
    let iss = read_text(object, "iss").map_err(|_| ClaimError::Malformed("may_act"))?.map(str::to_owned);
    Ok(Some(MayAct { iss, sub }))
}

/// Reads a space-separated list (RFC 9068 §2.2.3) or an array of strings, as some issuers send it.
/// Characters that RFC 6749 forbids in scopes make the token malformed.
fn read_scope(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<ScopeSet>, ClaimError> {
    let malformed = ClaimError::Malformed("scope");
    match claims.get(&issuer.claims.scope) {
        None => Ok(None),
        Some(Value::String(list)) if list.is_empty() => Ok(None),
        Some(Value::String(list)) => list.parse().map(Some).map_err(|_| malformed),
        Some(Value::Array(list)) => list
            .iter()
            .map(|value| value.as_str().and_then(|scope| scope.parse::<ScopeToken>().ok()))
            .collect::<Option<ScopeSet>>()
            .map(Some)
            .ok_or(malformed),
        Some(_) => Err(malformed),
    }
}

/// Reads the `act` of the issuer. Every actor is kept, behind this server's agent. An actor without
/// `iss` and `sub` is malformed (RFC 8693 §4.1).
fn read_actor_chain(claims: &Map<String, Value>) -> Result<Option<ActorChain>, ClaimError> {
    let malformed = ClaimError::Malformed("act");
    let mut actors = Vec::new();
    let mut next = claims.get("act");
    while let Some(value) = next {
        let act = value.as_object().ok_or(malformed)?;
        let part = |name| read_text(act, name).map(|text| text.map(str::to_owned)).map_err(|_| malformed);
        let name = |name| part(name)?.filter(|text| !text.is_empty()).ok_or(malformed);
        // A profile that can't be kept verbatim makes the actor malformed; it is never rewritten.
        actors.push(Actor { iss: name("iss")?, sub: name("sub")?, sub_profile: part("sub_profile")? });
        next = act.get("act");
    }
    if actors.is_empty() { Ok(None) } else { ActorChain::new(actors).map(Some).map_err(|_| malformed) }
}

fn read_auth_context(claims: &Map<String, Value>) -> Result<AuthenticationContext, ClaimError> {
    let amr = match claims.get("amr") {
        None => None,
        Some(Value::Array(list)) if list.len() <= 16 => Some(
            list.iter()
                .map(|value| value.as_str().filter(|v| v.len() <= 64).map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .ok_or(ClaimError::Malformed("amr"))?,
        ),
        Some(_) => return Err(ClaimError::Malformed("amr")),
    };
    Ok(AuthenticationContext {
        auth_time: read_date(claims, "auth_time")?,
        acr: read_text(claims, "acr")?.map(str::to_owned),
        amr,
    })
}

/// The validated claims of a client assertion (RFC 7523 §3, rfc7523bis), or of an actor token of
/// the same form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionClaims {
    /// The one-time id.
    pub jti: String,
    /// Until when the id must be remembered: past `exp` and the leeway, to prevent replay.
    pub remember_until: Timestamp,
}

/// The rules for a client assertion.
#[derive(Clone, Debug)]
pub struct AssertionRules<'a> {
    /// This server's issuer identifier: the `aud`.
    pub issuer: &'a str,
    /// The URL of the token endpoint, for a client that may also use it as `aud`.
    pub token_endpoint: Option<String>,
    /// The tolerance for the client's clock.
    pub leeway: Lifetime,
    /// The maximum lifetime.
    pub max_lifetime: Lifetime,
}

/// Validates the claims of an assertion of `client` whose signature was verified.
pub fn check_assertion(
    claims: &Map<String, Value>,
    client: &ClientId,
    rules: &AssertionRules<'_>,
    now: Timestamp,
) -> Result<AssertionClaims, ClaimError> {
    let is_client = |name| read_text(claims, name).map(|value| value == Some(client.as_str()));
    if !is_client("iss")? || !is_client("sub")? {
        return Err(ClaimError::ClientMismatch);
    }
    // Only a single string is accepted; an array, even with one element, is rejected (rfc7523bis).
    let aud = claims.get("aud").ok_or(ClaimError::Missing("aud"))?.as_str().ok_or(ClaimError::InvalidAudience)?;
    if aud != rules.issuer && Some(aud) != rules.token_endpoint.as_deref() {
        return Err(ClaimError::InvalidAudience);
    }
    let (iat, exp) = check_lifetime(claims, now, rules.leeway)?;
    let from = iat.map_or(now, |iat| iat.min(now));
    if exp > from.saturating_add(rules.max_lifetime).saturating_add(rules.leeway) {
        return Err(ClaimError::LifetimeTooLong);
    }
    let jti =
        read_text(claims, "jti")?.filter(|jti| (1..=255).contains(&jti.len())).ok_or(ClaimError::Missing("jti"))?;
    // Remember the id past the leeway, or garbage collection would permit a replay, and past the
    // maximum clock skew between replicas.
    let remember_until = exp.saturating_add(rules.leeway).saturating_add(MAX_CLOCK_SKEW);
    Ok(AssertionClaims { jti: jti.to_owned(), remember_until })
}

#[cfg(test)]
mod tests;
