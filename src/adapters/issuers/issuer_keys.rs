//! What we hold of one issuer's keys, and when it is asked for more.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard},
    time::Duration,
};

use ipnet::IpNet;
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;
use url::Url;

use crate::{
    adapters::{
        fetch::{FetchError, Fetcher},
        jose::VerifierSet,
    },
    domain::{
        jose::jwk::{JwkSet, JwkSetError, JwsAlgorithm},
        registry::issuer::{KeySource, TrustedIssuer},
        uri::IssuerUrl,
    },
    ports::{Clock, Outage},
};

/// How old keys get before they are asked for again.
const REFRESH_INTERVAL: Duration = Duration::from_mins(10);
/// How long keys are good when the issuer can't be asked any more.
const MAX_STALE: Duration = Duration::from_hours(24);
/// How long an issuer that failed is left alone.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// How often a token can make us ask, by naming a key that we don't know.
const UNKNOWN_KID_INTERVAL: Duration = Duration::from_mins(1);

/// What asking needs.
#[derive(Clone)]
pub(super) struct FetchContext {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetcher: Arc<Fetcher>,
    /// How long all the fetches of one asking may take together.
    pub(super) timeout: Duration,
}

/// One issuer's keys, for as long as its entry says the same about them.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    source_id: KeySourceId,
    state: RwLock<CacheState>,
    /// Held by the one that asks. Who waits for it finds the answer.
    fetch_lock: Mutex<()>,
}

/// The part of an issuer's entry that its keys depend on.
#[derive(Debug, PartialEq, Eq)]
struct KeySourceId {
    issuer: IssuerUrl,
    source: KeySource,
    algorithms: Vec<JwsAlgorithm>,
    networks: Vec<IpNet>,
}

/// Times are those of the monotonic clock.
#[derive(Debug, Default)]
struct CacheState {
    cached: Option<CachedJwks>,
    /// When the last asking failed and why, if it did.
    last_failure: Option<(Duration, Arc<str>)>,
    unknown_kid_fetched_at: Option<Duration>,
}

#[derive(Clone, Debug)]
struct CachedJwks {
    keys: Arc<VerifierSet>,
    fetched_at: Duration,
}

/// Why we ask.
#[derive(Clone, Debug)]
enum FetchReason {
    /// There are none, or they are too old to be used.
    NoKeys,
    /// It is time.
    Due,
    /// A token names a key that is not among these.
    UnknownKid(Arc<VerifierSet>),
}

impl IssuerKeys {
    pub(super) fn new(issuer: &TrustedIssuer) -> Self {
        let about = KeySourceId {
            issuer: issuer.issuer.clone(),
            source: issuer.keys.clone(),
            algorithms: issuer.algorithms.clone(),
            networks: issuer.allowed_networks.clone(),
        };
        Self { source_id: about, state: RwLock::default(), fetch_lock: Mutex::default() }
    }

    /// Whether this slot's keys are those that the entry, as it is now, would lead to.
    pub(super) fn is_current_for(&self, issuer: &TrustedIssuer) -> bool {
        let KeySourceId { issuer: url, source, algorithms, networks } = &self.source_id;
        *url == issuer.issuer
            && *source == issuer.keys
            && *algorithms == issuer.algorithms
            && *networks == issuer.allowed_networks
    }

    pub(super) fn issuer(&self) -> &str {
        self.source_id.issuer.as_str()
    }

    /// Whether the last asking failed.
    pub(super) fn is_unreachable(&self) -> bool {
        self.read_state().last_failure.is_some()
    }

    /// The keys; asks for them if there are none.
    pub(super) async fn get_or_fetch(self: &Arc<Self>, means: &FetchContext) -> Result<Arc<VerifierSet>, Outage> {
        match self.usable_keys(means.clock.monotonic()) {
            Some(held) => Ok(held.keys),
            None => self.fetch(means, FetchReason::NoKeys).await,
        }
    }

    /// Newer keys than these, which lack one that a token names. `None` if it is too early to ask again, and the last
    /// answer has to do.
    pub(super) async fn fetch_newer_keys(
        self: &Arc<Self>,
        means: &FetchContext,
        than: Arc<VerifierSet>,
    ) -> Result<Option<Arc<VerifierSet>>, Outage> {
        let newer = self.fetch(means, FetchReason::UnknownKid(Arc::clone(&than))).await?;
        Ok((!Arc::ptr_eq(&newer, &than)).then_some(newer))
    }

    /// Asks if it is time.
    pub(super) async fn refresh_if_due(self: &Arc<Self>, means: &FetchContext) -> Result<(), Outage> {
        if self.is_refresh_due(means.clock.monotonic()) {
            self.fetch(means, FetchReason::Due).await?;
        }
        Ok(())
    }

    /// Asks in a task of its own: who wanted the keys may hang up, and must not take the answer from all others.
    async fn fetch(self: &Arc<Self>, means: &FetchContext, occasion: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let (slot, means) = (Arc::clone(self), means.clone());
        let asking = tokio::spawn(async move { slot.fetch_coalesced(&means, occasion).await });
        asking.await.map_err(Outage::during(OP_FETCH_JWKS))?
    }

    async fn fetch_coalesced(&self, means: &FetchContext, occasion: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let _turn = self.fetch_lock.lock().await;
        let now = means.clock.monotonic();
        let held = self.usable_keys(now);
        if let Some(CachedJwks { keys, .. }) = &held {
            let done_while_we_waited = match &occasion {
                FetchReason::NoKeys => true,
                FetchReason::Due => !self.is_refresh_due(now),
                FetchReason::UnknownKid(than) => !Arc::ptr_eq(keys, than),
            };
            if done_while_we_waited {
                return Ok(Arc::clone(keys));
            }
        }
        if self.is_in_retry_delay(now) {
            return Err(self
                .recent_failure()
                .unwrap_or_else(|| Outage::during(OP_FETCH_JWKS)("it failed a moment ago")));
        }
        if let (FetchReason::UnknownKid(_), Some(CachedJwks { keys, .. })) = (&occasion, held)
            && !self.claim_unknown_kid_fetch(now)
        {
            // With the issuer out of reach we can't say that it has no such key.
            return self.recent_failure().map_or(Ok(keys), Err);
        }
        let answer = tokio::time::timeout(means.timeout, self.source_id.fetch_jwks(&means.fetcher)).await;
        let answer = answer.unwrap_or_else(|_| Err(JwksError::TimedOut(means.timeout)));
        let now = means.clock.monotonic();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        match answer {
            Ok(keys) => {
                let keys = Arc::new(VerifierSet::build(&keys, &self.source_id.algorithms));
                state.cached = Some(CachedJwks { keys: Arc::clone(&keys), fetched_at: now });
                state.last_failure = None;
                Ok(keys)
            }
            Err(fault) => {
                state.last_failure = Some((now, error_chain(&fault).into()));
                Err(Outage::during(OP_FETCH_JWKS)(fault))
            }
        }
    }

    fn usable_keys(&self, now: Duration) -> Option<CachedJwks> {
        self.read_state().cached.clone().filter(|held| now.saturating_sub(held.fetched_at) < MAX_STALE)
    }

    fn is_refresh_due(&self, now: Duration) -> bool {
        let fresh = self
            .read_state()
            .cached
            .as_ref()
            .is_some_and(|held| now.saturating_sub(held.fetched_at) < REFRESH_INTERVAL);
        !fresh && !self.is_in_retry_delay(now)
    }

    fn is_in_retry_delay(&self, now: Duration) -> bool {
        self.read_state().last_failure.as_ref().is_some_and(|(at, _)| now.saturating_sub(*at) < RETRY_DELAY)
    }

    /// Counts the asking as done when it is allowed, whatever becomes of it.
    fn claim_unknown_kid_fetch(&self, now: Duration) -> bool {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        if state.unknown_kid_fetched_at.is_some_and(|at| now.saturating_sub(at) < UNKNOWN_KID_INTERVAL) {
            return false;
        }
        state.unknown_kid_fetched_at = Some(now);
        true
    }

    fn recent_failure(&self) -> Option<Outage> {
        let state = self.read_state();
        let (_, why) = state.last_failure.as_ref()?;
        Some(Outage::during(OP_FETCH_JWKS)(format!("it failed a moment ago and is not asked again yet: {why}")))
    }

    fn read_state(&self) -> RwLockReadGuard<'_, CacheState> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }
}

const OP_FETCH_JWKS: &str = "asking the issuer for its keys";

/// Why an issuer's keys could not be had.
#[derive(Debug, Error)]
enum JwksError {
    #[error("fetching {document}")]
    Fetch { document: &'static str, source: FetchError },
    #[error("all in all it took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the metadata names another issuer: `issuer` must be exactly `{0}`")]
    IssuerMismatch(IssuerUrl),
    #[error("the metadata has no `jwks_uri` that is a URL")]
    MissingJwksUri,
    #[error("the issuer is no URL that metadata could be below")]
    InvalidIssuerUrl,
    #[error(transparent)]
    InvalidJwkSet(#[from] JwkSetError),
}

impl KeySourceId {
    async fn fetch_jwks(&self, fetcher: &Fetcher) -> Result<JwkSet, JwksError> {
        let uri = match &self.source {
            KeySource::Inline(keys) => return Ok(keys.clone()),
            KeySource::JwksUri(uri) => uri.clone(),
            KeySource::Discovery => self.discover_jwks_uri(fetcher).await?,
        };
        let document = self.fetch_json(fetcher, &uri, "the keys").await?;
        Ok(JwkSet::try_from(document)?)
    }

    /// OpenID Connect Discovery §4, and RFC 8414 §3 if the issuer has nothing there.
    async fn discover_jwks_uri(&self, fetcher: &Fetcher) -> Result<Url, JwksError> {
        let issuer = &self.issuer;
        let oidc = Url::parse(&issuer.join("/.well-known/openid-configuration")).ok();
        let oidc = oidc.ok_or(JwksError::InvalidIssuerUrl)?;
        let metadata = match self.fetch_json(fetcher, &oidc, "the metadata").await {
            Err(JwksError::Fetch { source: FetchError::UnexpectedStatus(_) | FetchError::NotJson, .. }) => {
                let oauth = oauth_metadata_url(issuer).ok_or(JwksError::InvalidIssuerUrl)?;
                self.fetch_json(fetcher, &oauth, "the metadata").await?
            }
            answer => answer?,
        };
        // The same string, not the same URL (OpenID Connect Discovery §4.3, RFC 8414 §3.3).
        if metadata.get("issuer").and_then(Value::as_str) != Some(issuer.as_str()) {
            return Err(JwksError::IssuerMismatch(issuer.clone()));
        }
        metadata
            .get("jwks_uri")
            .and_then(Value::as_str)
            .and_then(|uri| uri.parse().ok())
            .ok_or(JwksError::MissingJwksUri)
    }

    async fn fetch_json(&self, fetcher: &Fetcher, url: &Url, what: &'static str) -> Result<Value, JwksError> {
        fetcher.fetch_json(url, &self.networks).await.map_err(|source| JwksError::Fetch { document: what, source })
    }
}

/// RFC 8414 §3.1: the well-known part goes between the host and the issuer's path.
fn oauth_metadata_url(issuer: &IssuerUrl) -> Option<Url> {
    let mut url = Url::parse(issuer.as_str()).ok()?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Some(url)
}

/// A fault with its causes, for who meets it later.
fn error_chain(fault: &JwksError) -> String {
    let mut text = fault.to_string();
    let mut cause = fault.source();
    while let Some(fault) = cause {
        let _ = write!(text, ": {fault}");
        cause = fault.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_path_is_inserted_between_host_and_path() {
        for (issuer, want) in [
            ("https://login.example.com", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/", "https://login.example.com/.well-known/oauth-authorization-server"),
            ("https://login.example.com/t/1", "https://login.example.com/.well-known/oauth-authorization-server/t/1"),
            ("https://login.example.com/t/", "https://login.example.com/.well-known/oauth-authorization-server/t"),
        ] {
            assert_eq!(oauth_metadata_url(&issuer.parse().unwrap()).unwrap().as_str(), want);
        }
    }
}
