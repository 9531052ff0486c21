//! The claims of tokens that others signed: read, bounded and checked. The absence of a claim is a refusal.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{
    chain::{Chain, Hop},
    id::{ClientId, Subject},
    issuer::{OtherAudiences, SubjectTokenType, TrustedIssuer},
    limits::CLOCKS_MAY_DIFFER,
    scope::{ScopeSet, ScopeToken},
    task::Requester,
    time::{Lifetime, Timestamp},
};

/// Which rule a token's claims break.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadClaim {
    /// The claim is not there.
    #[error("`{0}` is missing")]
    Missing(&'static str),
    /// The claim has the wrong type or form.
    #[error("`{0}` is malformed")]
    Malformed(&'static str),
    /// `aud` does not mean us, or means others too.
    #[error("`aud` is not acceptable here")]
    Audience,
    /// `exp` has come.
    #[error("the token has expired")]
    Expired,
    /// `nbf` or `iat` lies ahead.
    #[error("the token is not valid yet")]
    NotYet,
    /// It lives longer than allowed.
    #[error("the token lives longer than is taken here")]
    TooLong,
    /// The subject could be taken for another issuer's.
    #[error("the subject begins with another issuer's prefix")]
    Subject,
    /// It is a security event, not a token for anybody.
    #[error("`events` makes it a security event, not a user token")]
    SecurityEvent,
    /// `iss` and `sub` of an assertion are not the client.
    #[error("`iss` and `sub` must both be the client")]
    NotTheClient,
}

/// A NumericDate (RFC 7519 §2) as we take it: a whole number of seconds between 1970 and 9999.
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, BadClaim> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_i64().filter(|s| *s >= 0 && *s <= Timestamp::MAX.unix());
    seconds.map(|s| Some(Timestamp::from_unix(s))).ok_or(BadClaim::Malformed(name))
}

fn text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, BadClaim> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() <= 1024 && !text.chars().any(char::is_control) => Ok(Some(text)),
        Some(_) => Err(BadClaim::Malformed(name)),
    }
}

/// `aud` (RFC 7519 §4.1.3): a string or an array of strings, never empty.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<String>, BadClaim> {
    let strings = match claims.get("aud") {
        None => return Err(BadClaim::Missing("aud")),
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(list)) => list
            .iter()
            .map(|value| value.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .ok_or(BadClaim::Malformed("aud"))?,
        Some(_) => return Err(BadClaim::Malformed("aud")),
    };
    if strings.is_empty() || strings.iter().any(String::is_empty) {
        return Err(BadClaim::Malformed("aud"));
    }
    Ok(strings)
}

/// The times of a token, checked: alive now, not from the future beyond the leeway. Returns (`iat`, `exp`).
fn lifetime(
    claims: &Map<String, Value>,
    now: Timestamp,
    leeway: Lifetime,
) -> Result<(Option<Timestamp>, Timestamp), BadClaim> {
    let exp = date(claims, "exp")?.ok_or(BadClaim::Missing("exp"))?;
    let (iat, nbf) = (date(claims, "iat")?, date(claims, "nbf")?);
    if exp.after(leeway).is_past(now) {
        return Err(BadClaim::Expired);
    }
    let ahead = |at: Option<Timestamp>| at.is_some_and(|at| at > now.after(leeway));
    if ahead(iat) || ahead(nbf) {
        return Err(BadClaim::NotYet);
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
    pub bound: bool,
    /// The token's scope; `None` when it has none.
    pub scope: Option<ScopeSet>,
    /// Who acts already, by the issuer's word.
    pub chain: Option<Chain>,
    /// How and when the requester signed in; passed on unchanged.
    pub sign_in: SignIn,
    /// All claims, for entitlement rules.
    pub all: Map<String, Value>,
}

impl UserClaims {
    /// Whether the requester alone holds it, at a portal of the issuer: nobody acts or may act for them, and no key that we
    /// take no proof of is asked for.
    #[must_use]
    pub fn is_of_portal(&self, issuer: &TrustedIssuer) -> bool {
        let by_portal = self.client.as_ref().is_some_and(|client| issuer.portal_clients.contains(client));
        by_portal && self.may_act.is_none() && self.chain.is_none() && !self.bound
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
pub struct SignIn {
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
    pub agent_names: &'a [String],
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
) -> Result<UserClaims, BadClaim> {
    let issuer = rules.issuer;
    if text(&claims, "iss")?.ok_or(BadClaim::Missing("iss"))? != issuer.issuer.as_str() {
        return Err(BadClaim::Malformed("iss"));
    }
    // RFC 8417: a security event, such as a logout token, is addressed like an ID token and says the opposite.
    if claims.contains_key("events") {
        return Err(BadClaim::SecurityEvent);
    }
    let (iat, expires) = lifetime(&claims, now, rules.leeway)?;
    iat.ok_or(BadClaim::Missing("iat"))?;
    // The leeway is for clocks that differ, not for tokens from expired ones: the transaction token draft forbids those.
    if expires.is_past(now) {
        return Err(BadClaim::Expired);
    }
    let audiences = audiences(&claims)?;
    let ours = match rules.kind {
        SubjectTokenType::AccessToken | SubjectTokenType::Jwt => &issuer.audiences[..],
        SubjectTokenType::IdToken => rules.agent_names,
    };
    let is_ours = |aud: &String| ours.contains(aud);
    let acceptable = match issuer.other_audiences {
        OtherAudiences::Refuse => audiences.len() == 1 && audiences.iter().all(is_ours),
        OtherAudiences::Accept => audiences.iter().any(is_ours),
    };
    if !acceptable {
        return Err(BadClaim::Audience);
    }
    if rules.kind == SubjectTokenType::AccessToken {
        // RFC 9068 §2.2: an access token that says at+jwt has these.
        text(&claims, "client_id")?.ok_or(BadClaim::Missing("client_id"))?;
        text(&claims, "jti")?.ok_or(BadClaim::Missing("jti"))?;
    }
    let sub = text(&claims, "sub")?.ok_or(BadClaim::Missing("sub"))?;
    if sub.is_empty() {
        return Err(BadClaim::Malformed("sub"));
    }
    // The whole name is what must not look like another issuer's: behind a prefix of its own, `sub` may begin with anything.
    let name = format!("{}{sub}", issuer.subject_prefix.as_deref().unwrap_or_default());
    if rules.foreign_prefixes.iter().any(|prefix| !prefix.is_empty() && name.starts_with(prefix)) {
        return Err(BadClaim::Subject);
    }
    let subject = name.parse::<Subject>().map_err(|_| BadClaim::Malformed("sub"))?;
    Ok(UserClaims {
        requester: Requester { issuer: issuer.issuer.clone(), subject },
        audiences,
        expires,
        client: client(&claims, issuer)?,
        may_act: may_act(&claims)?,
        bound: claims.contains_key("cnf"),
        scope: scope(&claims, issuer)?,
        chain: chain(&claims)?,
        sign_in: sign_in(&claims)?,
        all: claims,
    })
}

fn client(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<String>, BadClaim> {
    for name in &issuer.claims.client {
        match claims.get(name) {
            None => {}
            Some(Value::String(client)) => return Ok(Some(client.clone())),
            Some(_) => return Err(BadClaim::Malformed("client_id")),
        }
    }
    Ok(None)
}

fn may_act(claims: &Map<String, Value>) -> Result<Option<MayAct>, BadClaim> {
    let Some(value) = claims.get("may_act") else { return Ok(None) };
    let object = value.as_object().ok_or(BadClaim::Malformed("may_act"))?;
    let sub = text(object, "sub").ok().flatten().ok_or(BadClaim::Malformed("may_act"))?.to_owned();
    let iss = text(object, "iss").map_err(|_| BadClaim::Malformed("may_act"))?.map(str::to_owned);
    Ok(Some(MayAct { iss, sub }))
}

/// A list with spaces (RFC 9068 §2.2.3) or an array of strings, as some issuers write it. Scopes with characters that
/// RFC 6749 does not know make the token malformed.
fn scope(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<ScopeSet>, BadClaim> {
    let malformed = BadClaim::Malformed("scope");
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
fn chain(claims: &Map<String, Value>) -> Result<Option<Chain>, BadClaim> {
    let malformed = BadClaim::Malformed("act");
    let mut hops = Vec::new();
    let mut next = claims.get("act");
    while let Some(value) = next {
        let act = value.as_object().ok_or(malformed)?;
        let part = |name| text(act, name).map(|text| text.map(str::to_owned)).map_err(|_| malformed);
        let name = |name| part(name)?.filter(|text| !text.is_empty()).ok_or(malformed);
        // A remark that can't be kept as it is makes the hop malformed too: it is never rewritten.
        hops.push(Hop { iss: name("iss")?, sub: name("sub")?, sub_profile: part("sub_profile")? });
        next = act.get("act");
    }
    if hops.is_empty() { Ok(None) } else { Chain::new(hops).map(Some).map_err(|_| malformed) }
}

fn sign_in(claims: &Map<String, Value>) -> Result<SignIn, BadClaim> {
    let amr = match claims.get("amr") {
        None => None,
        Some(Value::Array(list)) if list.len() <= 16 => Some(
            list.iter()
                .map(|value| value.as_str().filter(|v| v.len() <= 64).map(str::to_owned))
                .collect::<Option<Vec<_>>>()
                .ok_or(BadClaim::Malformed("amr"))?,
        ),
        Some(_) => return Err(BadClaim::Malformed("amr")),
    };
    Ok(SignIn { auth_time: date(claims, "auth_time")?, acr: text(claims, "acr")?.map(str::to_owned), amr })
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
    pub max_life: Lifetime,
}

/// Checks the claims of an assertion of `client`, whose signature is good.
pub fn check_assertion(
    claims: &Map<String, Value>,
    client: &ClientId,
    rules: &AssertionRules<'_>,
    now: Timestamp,
) -> Result<AssertionClaims, BadClaim> {
    let is_client = |name| text(claims, name).map(|value| value == Some(client.as_str()));
    if !is_client("iss")? || !is_client("sub")? {
        return Err(BadClaim::NotTheClient);
    }
    // The sole string: an array, even of one, is refused (rfc7523bis).
    let aud = claims.get("aud").ok_or(BadClaim::Missing("aud"))?.as_str().ok_or(BadClaim::Audience)?;
    if aud != rules.issuer && Some(aud) != rules.token_endpoint.as_deref() {
        return Err(BadClaim::Audience);
    }
    let (iat, exp) = lifetime(claims, now, rules.leeway)?;
    let from = iat.map_or(now, |iat| iat.min(now));
    if exp > from.after(rules.max_life).after(rules.leeway) {
        return Err(BadClaim::TooLong);
    }
    let jti = text(claims, "jti")?.filter(|jti| (1..=255).contains(&jti.len())).ok_or(BadClaim::Missing("jti"))?;
    // Past the leeway, or the sweeper would open a gap for a replay; and by so much that replicas' clocks may differ.
    let remember_until = exp.after(rules.leeway).after(CLOCKS_MAY_DIFFER);
    Ok(AssertionClaims { jti: jti.to_owned(), remember_until })
}

#[cfg(test)]
mod tests;
