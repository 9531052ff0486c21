//! The claims of tokens that others signed: read, bounded and checked. The absence of a claim is a refusal.

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

/// Which rule a token's claims break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// The claim is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The claim has the wrong type or form.
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
    /// `aud` does not mean us, or means others too.
    #[error("`aud` is not acceptable here")]
    InvalidAudience,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// It lives longer than allowed.
    #[error("the token lives longer than is taken here")]
    LifetimeTooLong,
    /// The subject could be taken for another issuer's.
    #[error("the subject begins with another issuer's prefix")]
    ForeignSubjectPrefix,
    /// It is a security event, not a token for anybody.
    #[error("`events` makes it a security event, not a user token")]
    SecurityEvent,
    /// `iss` and `sub` of an assertion are not the client.
    #[error("`iss` and `sub` must both be the client")]
    ClientMismatch,
}

/// A NumericDate (RFC 7519 §2) as we take it: a whole number of seconds between 1970 and 9999.
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

/// `aud` (RFC 7519 §4.1.3): a string or an array of strings, never empty.
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

/// The times of a token, checked: alive now, not from the future beyond the leeway. Returns (`iat`, `exp`).
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

/// What a user token says, after every check on its claims.
#[derive(Clone, Debug)]
pub struct UserClaims {
    /// In whose name.
    pub requester: Requester,
    /// Its `aud`.
    pub audiences: Vec<String>,
    /// When it ends.
    pub expires: Timestamp,
    /// The client it was issued to (`client_id` or `azp`), in the issuer's words.
    pub client: Option<String>,
    /// `may_act`: the one party that may act for the requester.
    pub may_act: Option<MayAct>,
    /// Whether it is bound to a key (`cnf`, RFC 7800), so that only who holds the key may use it.
    pub is_key_bound: bool,
    /// The token's scope; `None` when it has none.
    pub scope: Option<ScopeSet>,
    /// Who acts already, by the issuer's word.
    pub chain: Option<ActorChain>,
    /// How and when the requester signed in; passed on unchanged.
    pub auth_context: AuthenticationContext,
    /// All claims, for entitlement rules.
    pub raw_claims: Map<String, Value>,
}

impl UserClaims {
    /// Whether the requester alone holds it, at a portal of the issuer: nobody acts or may act for them, and no key that we
    /// take no proof of is asked for.
    #[must_use]
    pub fn is_issued_to_portal(&self, issuer: &TrustedIssuer) -> bool {
        let by_portal = self.client.as_ref().is_some_and(|client| issuer.portal_clients.contains(client));
        by_portal && self.may_act.is_none() && self.chain.is_none() && !self.is_key_bound
    }
}

/// `may_act` (RFC 8693 §4.4): who may act. Without `iss`, `sub` is a name that the token's issuer gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayAct {
    /// The namespace of `sub`.
    pub iss: Option<String>,
    /// The party.
    pub sub: String,
}

/// How and when the requester signed in (RFC 9068 §2.2.1). Never refreshed by an exchange.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthenticationContext {
    /// When.
    pub auth_time: Option<Timestamp>,
    /// How strongly.
    pub acr: Option<String>,
    /// By which means.
    pub amr: Option<Vec<String>>,
}

/// What a user token is held to.
#[derive(Clone, Debug)]
pub struct UserTokenRules<'a> {
    /// Who signed it.
    pub issuer: &'a TrustedIssuer,
    /// The type that it is; its `typ` fits.
    pub kind: SubjectTokenType,
    /// The client ids under which the issuer knows the agent: an ID token's `aud` must be one of them.
    pub agent_client_ids: &'a [String],
    /// The subject prefixes of all other issuers.
    pub foreign_prefixes: Vec<&'a str>,
    /// How far the issuer's clock may be off.
    pub leeway: Lifetime,
}

/// Checks the claims of a user token whose signature is good.
pub fn check_user_claims(
    claims: Map<String, Value>,
    rules: &UserTokenRules<'_>,
    now: Timestamp,
) -> Result<UserClaims, ClaimError> {
    let issuer = rules.issuer;
    if read_text(&claims, "iss")?.ok_or(ClaimError::Missing("iss"))? != issuer.issuer.as_str() {
        return Err(ClaimError::Malformed("iss"));
    }
    // RFC 8417: a security event, such as a logout token, is addressed like an ID token and says the opposite.
    if claims.contains_key("events") {
        return Err(ClaimError::SecurityEvent);
    }
    let (iat, expires) = check_lifetime(&claims, now, rules.leeway)?;
    iat.ok_or(ClaimError::Missing("iat"))?;
    // The leeway is for clocks that differ, not for tokens from expired ones: the transaction token draft forbids those.
    if expires.has_passed(now) {
        return Err(ClaimError::Expired);
    }
    let audiences = read_audiences(&claims)?;
    let ours = match rules.kind {
        SubjectTokenType::AccessToken | SubjectTokenType::Jwt => &issuer.audiences[..],
        SubjectTokenType::IdToken => rules.agent_client_ids,
    };
    let is_ours = |aud: &String| ours.contains(aud);
    let acceptable = match issuer.other_audiences {
        OtherAudiences::Refuse => audiences.len() == 1 && audiences.iter().all(is_ours),
        OtherAudiences::Accept => audiences.iter().any(is_ours),
    };
    if !acceptable {
        return Err(ClaimError::InvalidAudience);
    }
    if rules.kind == SubjectTokenType::AccessToken {
        // RFC 9068 §2.2: an access token that says at+jwt has these.
        read_text(&claims, "client_id")?.ok_or(ClaimError::Missing("client_id"))?;
        read_text(&claims, "jti")?.ok_or(ClaimError::Missing("jti"))?;
    }
    let sub = read_text(&claims, "sub")?.ok_or(ClaimError::Missing("sub"))?;
    if sub.is_empty() {
        return Err(ClaimError::Malformed("sub"));
    }
    // The whole name is what must not look like another issuer's: behind a prefix of its own, `sub` may begin with anything.
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

/// A list with spaces (RFC 9068 §2.2.3) or an array of strings, as some issuers write it. Scopes with characters that
/// RFC 6749 does not know make the token malformed.
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

/// An `act` that the issuer wrote is kept, hop by hop, beneath our agent; a hop without `iss` and `sub` is none (RFC 8693 §4.1).
fn read_actor_chain(claims: &Map<String, Value>) -> Result<Option<ActorChain>, ClaimError> {
    let malformed = ClaimError::Malformed("act");
    let mut hops = Vec::new();
    let mut next = claims.get("act");
    while let Some(value) = next {
        let act = value.as_object().ok_or(malformed)?;
        let part = |name| read_text(act, name).map(|text| text.map(str::to_owned)).map_err(|_| malformed);
        let name = |name| part(name)?.filter(|text| !text.is_empty()).ok_or(malformed);
        // A remark that can't be kept as it is makes the hop malformed too: it is never rewritten.
        hops.push(Actor { iss: name("iss")?, sub: name("sub")?, sub_profile: part("sub_profile")? });
        next = act.get("act");
    }
    if hops.is_empty() { Ok(None) } else { ActorChain::new(hops).map(Some).map_err(|_| malformed) }
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

/// What a client assertion (RFC 7523 §3, rfc7523bis) or an actor token of the same form says, after every check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssertionClaims {
    /// Its one-time id.
    pub jti: String,
    /// Until when the id must be remembered: past `exp` and the leeway, or a replay would find a gap.
    pub remember_until: Timestamp,
}

/// What a client assertion is held to.
#[derive(Clone, Debug)]
pub struct AssertionRules<'a> {
    /// Our issuer identifier: the `aud`.
    pub issuer: &'a str,
    /// Our token endpoint, for a client that is let in with it as `aud` too.
    pub token_endpoint: Option<String>,
    /// How far the client's clock may be off.
    pub leeway: Lifetime,
    /// How long it may live.
    pub max_lifetime: Lifetime,
}

/// Checks the claims of an assertion of `client`, whose signature is good.
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
    // The sole string: an array, even of one, is refused (rfc7523bis).
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
    // Past the leeway, or the sweeper would open a gap for a replay; and by so much that replicas' clocks may differ.
    let remember_until = exp.saturating_add(rules.leeway).saturating_add(MAX_CLOCK_SKEW);
    Ok(AssertionClaims { jti: jti.to_owned(), remember_until })
}

#[cfg(test)]
mod tests;
