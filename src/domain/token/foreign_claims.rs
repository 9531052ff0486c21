//! Claims of tokens that other parties signed: bounded parsing and validation. A missing claim is
//! an error.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::domain::{
    id::{ClientId, MAX_SUBJECT_BYTES, Subject},
    registry::issuer::{AudienceSource, OptionalClaim, OtherAudiences, SubjectScopes, SubjectTokenType, TrustedIssuer},
    requester::Requester,
    revocation::evidence::{EvidenceDigest, PresentedEvidence},
    scope::{MAX_SCOPE_LEN, ScopeSet, ScopeToken},
    settings::MAX_CLOCK_SKEW,
    time::{Lifetime, Timestamp},
    token::actor_chain::{Actor, ActorChain},
};

/// The maximum length of a claim that is read as text, `jti` included (bytes).
pub const MAX_TEXT_CLAIM_BYTES: usize = 1024;

/// The rule that the claims of a token violate.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ClaimError {
    /// The claim is missing.
    #[error("the claim `{0}` is missing")]
    Missing(&'static str),
    /// A claim that the issuer's entry can make optional is missing.
    #[error("the claim `{0}` is missing; if the provider never sends it, add it to the issuer's `optional_claims`")]
    MissingOptional(&'static str),
    /// The token has no `aud`.
    #[error(
        "the claim `aud` is missing; if the provider never sends it, set the issuer's `audience_from = \"client_id\"` and `required_claims`"
    )]
    MissingAudience,
    /// The claim has the wrong type or format.
    #[error("the claim `{0}` is malformed; it must be {format}", format = expected_format(.0))]
    Malformed(&'static str),
    /// The claim is too long.
    #[error("the claim `{0}` is longer than {1} bytes, the maximum")]
    TooLong(&'static str, usize),
    /// The claim is a number that is not a time in seconds before the year 10000.
    #[error("the claim `{0}` is not a time before the year 10000 in seconds since 1970 (is it in milliseconds?)")]
    OutOfRange(&'static str),
    /// `aud` of an assertion does not identify this server, or contains other values too.
    #[error("`aud` does not identify this server, or names another audience too")]
    InvalidAudience,
    /// No value of `aud` identifies this server.
    #[error(
        "no value of `aud` is one of the issuer's `audiences`; add the value there, or have the provider issue the token for one of them"
    )]
    UnknownAudience,
    /// `aud` identifies this server and other recipients.
    #[error(
        "`aud` names other recipients besides this server; request a token for this server alone, or set the issuer's `other_audiences = \"accept\"`"
    )]
    OtherAudience,
    /// `aud` of an ID token is not a client id of the agent.
    #[error("`aud` of an ID token must be a client id of the agent; add it to the agent's `known_as` for the issuer")]
    IdTokenAudience,
    /// The client stands for the audience, and is not the agent.
    #[error(
        "the token has no `aud`, and its client is not the agent; add the client id to the agent's `known_as` for the issuer"
    )]
    ClientIsNotAgent,
    /// A claim does not have the value that the issuer's entry requires.
    #[error("the claim `{0}` is missing or does not have the value in the issuer's `required_claims`")]
    RequiredClaim(Box<str>),
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
    #[error(
        "the claim `{0}` marks an ID token, which is not an access token; send it as `subject_token_type` urn:ietf:params:oauth:token-type:id_token, or have the provider leave the claim out of access tokens"
    )]
    IdTokenClaim(&'static str),
    /// `iss` or `sub` of an assertion is not the client.
    #[error("`iss` and `sub` of the assertion must both be the client id")]
    ClientMismatch,
}

/// Returns the format of a claim, for the error about one that has another.
fn expected_format(claim: &str) -> &'static str {
    match claim {
        "iss" => "the same text as the `issuer` of the provider's entry",
        "sub" => "a text that is not empty, without control characters",
        "aud" => "a text, or an array of texts, none of them empty",
        "exp" | "iat" | "nbf" => "a number of seconds since 1970",
        "scope" => "scopes with one space between them, or an array of scopes (RFC 6749 section 3.3)",
        "may_act" => "an object with `sub`, a text, and optionally `iss` (RFC 8693 section 4.4)",
        "act" => {
            "an object with `sub`, a text, and optionally `iss` and `act`: at most 16 different actors (RFC 8693 section 4.1)"
        }
        _ => "a text without control characters",
    }
}

/// The claims that only ID tokens have.
const ID_TOKEN_CLAIMS: [&str; 3] = ["nonce", "at_hash", "c_hash"];

/// Returns a member. `null` states nothing, so it is treated as absent.
fn member<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).filter(|value| !value.is_null())
}

/// Reads a NumericDate (RFC 7519 §2): any JSON number, without its fraction of a second. A time
/// before 1970 becomes the first second of 1970. A time after the year 9999 is an error: it is more
/// likely a number of milliseconds.
fn read_date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<Timestamp>, ClaimError> {
    let Some(value) = member(claims, name) else { return Ok(None) };
    let Value::Number(number) = value else { return Err(ClaimError::Malformed(name)) };
    let seconds = number.as_i64().or_else(|| whole_seconds(number.as_f64()?)).ok_or(ClaimError::OutOfRange(name))?;
    if seconds > Timestamp::MAX.unix() {
        return Err(ClaimError::OutOfRange(name));
    }
    Ok(Some(Timestamp::from_unix(seconds)))
}

/// Rounds a number of seconds down; `None` after the year 9999.
fn whole_seconds(seconds: f64) -> Option<i64> {
    const FIRST_TOO_LATE: f64 = 253_402_300_800.0;
    #[expect(clippy::cast_possible_truncation, reason = "the number is compared with the range of dates first")]
    let whole = seconds.floor().max(0.0) as i64;
    (seconds < FIRST_TOO_LATE).then_some(whole)
}

fn read_text<'a>(claims: &'a Map<String, Value>, name: &'static str) -> Result<Option<&'a str>, ClaimError> {
    match member(claims, name) {
        None => Ok(None),
        Some(Value::String(text)) if text.len() > MAX_TEXT_CLAIM_BYTES => {
            Err(ClaimError::TooLong(name, MAX_TEXT_CLAIM_BYTES))
        }
        Some(Value::String(text)) if !text.chars().any(char::is_control) => Ok(Some(text)),
        Some(_) => Err(ClaimError::Malformed(name)),
    }
}

/// Reads `aud` (RFC 7519 §4.1.3): a string or an array of strings, never empty.
fn read_audiences(claims: &Map<String, Value>) -> Result<Option<Vec<String>>, ClaimError> {
    let strings = match member(claims, "aud") {
        None => return Ok(None),
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
    Ok(Some(strings))
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
    /// The `aud` values; empty if the client stands for the audience.
    pub audiences: Vec<String>,
    /// The time of issue, if stated.
    pub issued: Option<Timestamp>,
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
    /// Claims that this server would only pass on, and whose values it can't. They are left out.
    pub ignored_claims: Vec<&'static str>,
}

impl UserClaims {
    /// Names the token as evidence. `signing_input` is its header and claims, as signed.
    #[must_use]
    pub fn as_evidence(&self, signing_input: &[u8]) -> PresentedEvidence {
        let issuer = &self.requester.issuer;
        let token = match self.raw_claims.get("jti").and_then(Value::as_str) {
            Some(jti) => EvidenceDigest::of_token_id(issuer, jti),
            None => EvidenceDigest::of_signed_text(issuer, signing_input),
        };
        let session = match self.raw_claims.get("sid") {
            None | Some(Value::Null) => None,
            Some(Value::String(sid)) => Some(EvidenceDigest::of_session(issuer, sid)),
            // A session may be named by a number.
            Some(sid) => Some(EvidenceDigest::of_session(issuer, &sid.to_string())),
        };
        let issued = self.issued.unwrap_or(Timestamp::EPOCH);
        PresentedEvidence { token, session, issued, expires: self.expires }
    }

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
    if member(&claims, "events").is_some() {
        return Err(ClaimError::SecurityEvent);
    }
    // OpenID Connect Core §2, §3.1.3.6 and §3.3.2.11: these claims bind an ID token to its sign-in.
    let is_access = matches!(rules.kind, SubjectTokenType::AccessToken | SubjectTokenType::Jwt);
    let has = |claim: &&str| claims.get(*claim).is_some_and(|value| !value.is_null());
    if let Some(claim) = ID_TOKEN_CLAIMS.into_iter().find(has).filter(|_| is_access) {
        return Err(ClaimError::IdTokenClaim(claim));
    }
    let (iat, expires) = check_lifetime(&claims, now, rules.leeway)?;
    if iat.is_none() && !issuer.optional_claims.contains(&OptionalClaim::Iat) {
        return Err(ClaimError::MissingOptional("iat"));
    }
    // The leeway tolerates clock differences. It does not permit tokens from expired ones, which
    // the transaction token draft forbids.
    if expires.has_passed(now) {
        return Err(ClaimError::Expired);
    }
    let client = read_client(&claims, issuer)?;
    let audiences = check_audience(&claims, client.as_deref(), rules)?;
    for (name, required) in &issuer.required_claims {
        if !has_required_value(member(&claims, name), required) {
            return Err(ClaimError::RequiredClaim(name.as_str().into()));
        }
    }
    if rules.kind == SubjectTokenType::AccessToken {
        // RFC 9068 §2.2 requires these claims in an at+jwt access token. An issuer may have another
        // name for the client.
        let has_other_name = !issuer.claims.client.iter().any(|name| name == "client_id");
        let has_client = member(&claims, "client_id").is_some() || (has_other_name && client.is_some());
        if !has_client && !issuer.optional_claims.contains(&OptionalClaim::ClientId) {
            return Err(ClaimError::MissingOptional("client_id"));
        }
        if read_text(&claims, "jti")?.is_none() && !issuer.optional_claims.contains(&OptionalClaim::Jti) {
            return Err(ClaimError::MissingOptional("jti"));
        }
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
    if name.len() > MAX_SUBJECT_BYTES {
        return Err(ClaimError::TooLong("sub", MAX_SUBJECT_BYTES));
    }
    let subject = name.parse::<Subject>().map_err(|_| ClaimError::Malformed("sub"))?;
    let mut ignored_claims = Vec::new();
    let scope = match read_scope(&claims, issuer) {
        // The scope has no effect, so its format does not matter.
        Err(_) if issuer.subject_scopes == SubjectScopes::Ignore => {
            ignored_claims.push("scope");
            None
        }
        read => read?,
    };
    Ok(UserClaims {
        requester: Requester { issuer: issuer.issuer.clone(), subject },
        audiences,
        issued: iat,
        expires,
        client,
        may_act: read_may_act(&claims)?,
        is_key_bound: member(&claims, "cnf").is_some(),
        scope,
        chain: read_actor_chain(&claims, issuer, &mut ignored_claims)?,
        auth_context: read_auth_context(&claims, &mut ignored_claims),
        raw_claims: claims,
        ignored_claims,
    })
}

/// Checks that the token is for this server, or an ID token for the agent, and returns its `aud`.
fn check_audience(
    claims: &Map<String, Value>,
    client: Option<&str>,
    rules: &UserTokenRules<'_>,
) -> Result<Vec<String>, ClaimError> {
    let issuer = rules.issuer;
    let is_agent = |name: &str| rules.agent_client_ids.iter().any(|id| id == name);
    let Some(audiences) = read_audiences(claims)? else {
        return match (issuer.audience_from, rules.kind) {
            (AudienceSource::ClientId, SubjectTokenType::AccessToken | SubjectTokenType::Jwt) => {
                client.filter(|client| is_agent(client)).map(|_| Vec::new()).ok_or(ClaimError::ClientIsNotAgent)
            }
            (AudienceSource::Aud, _) | (AudienceSource::ClientId, SubjectTokenType::IdToken) => {
                Err(ClaimError::MissingAudience)
            }
        };
    };
    let (accepted, unknown) = match rules.kind {
        SubjectTokenType::AccessToken | SubjectTokenType::Jwt => (&issuer.audiences[..], ClaimError::UnknownAudience),
        SubjectTokenType::IdToken => (rules.agent_client_ids, ClaimError::IdTokenAudience),
    };
    if !audiences.iter().any(|aud| accepted.contains(aud)) {
        return Err(unknown);
    }
    let is_exclusive = audiences.len() == 1;
    match issuer.other_audiences {
        OtherAudiences::Refuse if !is_exclusive => Err(ClaimError::OtherAudience),
        OtherAudiences::Refuse | OtherAudiences::Accept => Ok(audiences),
    }
}

/// Returns whether a claim has the required value, or is an array that contains it.
fn has_required_value(claim: Option<&Value>, required: &Value) -> bool {
    match claim {
        Some(Value::Array(list)) => list.contains(required),
        Some(value) => value == required,
        None => false,
    }
}

fn read_client(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<String>, ClaimError> {
    for name in &issuer.claims.client {
        match member(claims, name) {
            None => {}
            Some(Value::String(client)) if client.len() > MAX_TEXT_CLAIM_BYTES => {
                return Err(ClaimError::TooLong("client_id", MAX_TEXT_CLAIM_BYTES));
            }
            Some(Value::String(client)) if !client.chars().any(char::is_control) => return Ok(Some(client.clone())),
            Some(_) => return Err(ClaimError::Malformed("client_id")),
        }
    }
    Ok(None)
}

fn read_may_act(claims: &Map<String, Value>) -> Result<Option<MayAct>, ClaimError> {
    let Some(value) = member(claims, "may_act") else { return Ok(None) };
    let object = value.as_object().ok_or(ClaimError::Malformed("may_act"))?;
    let sub = read_text(object, "sub").ok().flatten().ok_or(ClaimError::Malformed("may_act"))?.to_owned();
    let iss = read_text(object, "iss").map_err(|_| ClaimError::Malformed("may_act"))?.map(str::to_owned);
    Ok(Some(MayAct { iss, sub }))
}

/// Reads a space-separated list (RFC 9068 §2.2.3) or an array of strings, as some issuers send it.
/// Characters that RFC 6749 forbids in scopes make the token malformed. There is no limit to their
/// number, and scopes that are longer than any scope of this server are left out.
fn read_scope(claims: &Map<String, Value>, issuer: &TrustedIssuer) -> Result<Option<ScopeSet>, ClaimError> {
    let is_usable = |scope: &&str| scope.len() <= MAX_SCOPE_LEN;
    let parse = |scope: &str| scope.parse::<ScopeToken>().ok();
    let scopes: Option<ScopeSet> = match member(claims, &issuer.claims.scope) {
        None => return Ok(None),
        Some(Value::String(list)) if list.is_empty() => return Ok(None),
        Some(Value::String(list)) => list.split(' ').filter(is_usable).map(parse).collect(),
        Some(Value::Array(list)) => {
            let texts = list.iter().map(Value::as_str).collect::<Option<Vec<_>>>();
            texts.and_then(|texts| texts.into_iter().filter(is_usable).map(parse).collect())
        }
        Some(_) => None,
    };
    scopes.map(Some).ok_or(ClaimError::Malformed("scope"))
}

/// Reads the `act` of the issuer. Every actor is kept, behind this server's agent. An actor without
/// `iss` is one of the issuer itself (RFC 8693 §4.1); one without `sub` is malformed.
fn read_actor_chain(
    claims: &Map<String, Value>,
    issuer: &TrustedIssuer,
    ignored: &mut Vec<&'static str>,
) -> Result<Option<ActorChain>, ClaimError> {
    let malformed = |_| ClaimError::Malformed("act");
    let mut actors = Vec::new();
    let mut next = member(claims, "act");
    while let Some(value) = next {
        let act = value.as_object().ok_or(ClaimError::Malformed("act"))?;
        let name = |name| match read_text(act, name).map_err(malformed)? {
            Some("") => Err(ClaimError::Malformed("act")),
            text => Ok(text.map(str::to_owned)),
        };
        let iss = name("iss")?.unwrap_or_else(|| issuer.issuer.to_string());
        let sub = name("sub")?.ok_or(ClaimError::Malformed("act"))?;
        let sub_profile = read_text(act, "sub_profile").unwrap_or_else(|_| {
            ignored.push("act.sub_profile");
            None
        });
        actors.push(Actor { iss, sub, sub_profile: sub_profile.map(str::to_owned) });
        next = member(act, "act");
    }
    if actors.is_empty() {
        Ok(None)
    } else {
        ActorChain::new(actors).map(Some).map_err(|_| ClaimError::Malformed("act"))
    }
}

/// Reads the claims about the authentication. They are only passed on, so a value that this server
/// can't pass on is left out and added to `ignored`.
fn read_auth_context(claims: &Map<String, Value>, ignored: &mut Vec<&'static str>) -> AuthenticationContext {
    let mut leave_out = |name| ignored.push(name);
    let auth_time = read_date(claims, "auth_time").unwrap_or_else(|_| {
        leave_out("auth_time");
        None
    });
    let acr = read_text(claims, "acr").unwrap_or_else(|_| {
        leave_out("acr");
        None
    });
    let amr = match member(claims, "amr") {
        None => None,
        Some(value) => {
            let amr = read_methods(value);
            if amr.is_none() {
                leave_out("amr");
            }
            amr
        }
    };
    AuthenticationContext { auth_time, acr: acr.map(str::to_owned), amr }
}

/// Reads up to 16 authentication methods of up to 64 bytes.
fn read_methods(value: &Value) -> Option<Vec<String>> {
    let list = value.as_array().filter(|list| list.len() <= 16)?;
    list.iter().map(|value| value.as_str().filter(|method| method.len() <= 64).map(str::to_owned)).collect()
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
    let aud = member(claims, "aud").ok_or(ClaimError::Missing("aud"))?.as_str().ok_or(ClaimError::InvalidAudience)?;
    if aud != rules.issuer && Some(aud) != rules.token_endpoint.as_deref() {
        return Err(ClaimError::InvalidAudience);
    }
    let (iat, exp) = check_lifetime(claims, now, rules.leeway)?;
    let from = iat.map_or(now, |iat| iat.min(now));
    if exp > from.saturating_add(rules.max_lifetime).saturating_add(rules.leeway) {
        return Err(ClaimError::LifetimeTooLong);
    }
    let jti = read_text(claims, "jti")?.filter(|jti| !jti.is_empty()).ok_or(ClaimError::Missing("jti"))?;
    // Remember the id past the leeway, or garbage collection would permit a replay, and past the
    // maximum clock skew between replicas.
    let remember_until = exp.saturating_add(rules.leeway).saturating_add(MAX_CLOCK_SKEW);
    Ok(AssertionClaims { jti: jti.to_owned(), remember_until })
}

#[cfg(test)]
mod tests;
