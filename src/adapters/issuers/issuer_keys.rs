//! The cached keys of one issuer, and when they are fetched again.

use std::{sync::Arc, time::Duration};

use ipnet::IpNet;
use parking_lot::{RwLock, RwLockReadGuard};
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
        id::ClientId,
        jose::jwk::{JwkSet, JwkSetError, JwsAlgorithm},
        registry::issuer::{KeySource, TrustedIssuer},
        uri::IssuerUrl,
    },
    ports::{Clock, ErrorChain, FetchCaller, Outage, RetryLater},
};

/// The age at which keys are fetched again.
const REFRESH_INTERVAL: Duration = Duration::from_mins(10);
/// The age up to which keys are used while the issuer is unreachable.
const MAX_STALE: Duration = Duration::from_hours(24);
/// The pause after a failed fetch.
const RETRY_DELAY: Duration = Duration::from_secs(5);
/// The minimum interval between fetches that one caller causes with tokens that name an unknown
/// key. Anonymous callers count as one.
const UNKNOWN_KID_INTERVAL: Duration = Duration::from_mins(1);
/// The minimum interval between such fetches of all callers together.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(5);

/// The dependencies of a fetch.
#[derive(Clone)]
pub(super) struct FetchContext {
    pub(super) clock: Arc<dyn Clock>,
    pub(super) fetcher: Arc<Fetcher>,
    /// The time limit for all the requests of one fetch together.
    pub(super) timeout: Duration,
}

/// The keys of one issuer, as long as its entry describes the same keys.
#[derive(Debug)]
pub(super) struct IssuerKeys {
    source_id: KeySourceId,
    state: RwLock<CacheState>,
    /// Held during a fetch. A caller that waits for the lock finds the result in the state.
    fetch_lock: Mutex<()>,
}

/// The part of an issuer's entry on which its keys depend.
#[derive(Debug, PartialEq, Eq)]
struct KeySourceId {
    issuer: IssuerUrl,
    source: KeySource,
    algorithms: Vec<JwsAlgorithm>,
    networks: Vec<IpNet>,
}

/// The cached keys and the state of fetching. Times are those of the monotonic clock.
#[derive(Debug, Default)]
struct CacheState {
    cached: Option<CachedJwks>,
    /// The time and the cause of the last failure, unless the last fetch succeeded.
    last_failure: Option<(Duration, Arc<str>)>,
    /// The fetches of the last minute that unknown keys caused, with the caller; `None` stands for
    /// anonymous ones. [`MIN_FETCH_INTERVAL`] limits their number.
    unknown_kid_fetches: Vec<(Option<ClientId>, Duration)>,
}

#[derive(Clone, Debug)]
struct CachedJwks {
    keys: Arc<VerifierSet>,
    fetched_at: Duration,
}

/// The reason for a fetch.
#[derive(Clone, Debug)]
enum FetchReason {
    /// No usable keys are cached.
    NoKeys,
    /// The keys are due for a refresh.
    Due,
    /// A token of this caller, `None` if anonymous, names a key that is not in this set.
    UnknownKid(Arc<VerifierSet>, Option<ClientId>),
}

impl IssuerKeys {
    pub(super) fn new(issuer: &TrustedIssuer) -> Self {
        let source_id = KeySourceId {
            issuer: issuer.issuer.clone(),
            source: issuer.keys.clone(),
            algorithms: issuer.algorithms.clone(),
            networks: issuer.allowed_networks.clone(),
        };
        Self { source_id, state: RwLock::default(), fetch_lock: Mutex::default() }
    }

    /// Returns whether the entry still describes these keys.
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

    /// Returns whether the last fetch failed.
    pub(super) fn is_unreachable(&self) -> bool {
        self.read_state().last_failure.is_some()
    }

    /// Returns the keys, and fetches them if none are cached.
    pub(super) async fn get_or_fetch(self: &Arc<Self>, context: &FetchContext) -> Result<Arc<VerifierSet>, Outage> {
        match self.usable_keys(context.clock.monotonic()) {
            Some(cached) => Ok(cached.keys),
            None => self.fetch(context, FetchReason::NoKeys).await,
        }
    }

    /// Returns newer keys than `than`, in which a token's key is missing. If it is too early for
    /// another fetch, nothing shows that the issuer lacks the key, so that is an outage.
    pub(super) async fn fetch_newer_keys(
        self: &Arc<Self>,
        context: &FetchContext,
        than: Arc<VerifierSet>,
        caller: FetchCaller<'_>,
    ) -> Result<Arc<VerifierSet>, Outage> {
        let caller = match caller {
            FetchCaller::Client(client) => Some(client.clone()),
            FetchCaller::Anonymous => None,
        };
        self.fetch(context, FetchReason::UnknownKid(than, caller)).await
    }

    /// Fetches the keys if they are due.
    pub(super) async fn refresh_if_due(self: &Arc<Self>, context: &FetchContext) -> Result<(), Outage> {
        if self.is_refresh_due(context.clock.monotonic()) {
            self.fetch(context, FetchReason::Due).await?;
        }
        Ok(())
    }

    /// Fetches in a task of its own, so that a caller that disconnects does not cancel the fetch
    /// for the others.
    async fn fetch(self: &Arc<Self>, context: &FetchContext, reason: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let (keys, context) = (Arc::clone(self), context.clone());
        let fetch = tokio::spawn(async move { keys.fetch_coalesced(&context, reason).await });
        fetch.await.map_err(Outage::during(OP_FETCH_JWKS))?
    }

    async fn fetch_coalesced(&self, context: &FetchContext, reason: FetchReason) -> Result<Arc<VerifierSet>, Outage> {
        let _guard = self.fetch_lock.lock().await;
        let now = context.clock.monotonic();
        let cached = self.usable_keys(now);
        if let Some(CachedJwks { keys, .. }) = &cached {
            let fetched_while_waiting = match &reason {
                FetchReason::NoKeys => true,
                FetchReason::Due => !self.is_refresh_due(now),
                FetchReason::UnknownKid(than, _) => !Arc::ptr_eq(keys, than),
            };
            if fetched_while_waiting {
                return Ok(Arc::clone(keys));
            }
        }
        if self.is_in_retry_delay(now) {
            return Err(self
                .recent_failure()
                .unwrap_or_else(|| Outage::during(OP_FETCH_JWKS)("the last fetch failed a moment ago")));
        }
        if let (FetchReason::UnknownKid(_, caller), Some(_)) = (&reason, cached) {
            self.claim_unknown_kid_fetch(caller.as_ref(), now).map_err(Outage::during(OP_FETCH_JWKS))?;
        }
        let result = tokio::time::timeout(context.timeout, self.source_id.fetch_jwks(&context.fetcher)).await;
        let result = result.unwrap_or_else(|_| Err(JwksError::TimedOut(context.timeout)));
        let now = context.clock.monotonic();
        let mut state = self.state.write();
        match result {
            Ok(keys) => {
                let keys = Arc::new(VerifierSet::build(&keys, &self.source_id.algorithms));
                state.cached = Some(CachedJwks { keys: Arc::clone(&keys), fetched_at: now });
                state.last_failure = None;
                Ok(keys)
            }
            Err(error) => {
                state.last_failure = Some((now, ErrorChain(&error).to_string().into()));
                Err(Outage::during(OP_FETCH_JWKS)(error))
            }
        }
    }

    fn usable_keys(&self, now: Duration) -> Option<CachedJwks> {
        self.read_state().cached.clone().filter(|cached| now.saturating_sub(cached.fetched_at) < MAX_STALE)
    }

    fn is_refresh_due(&self, now: Duration) -> bool {
        let fresh = self
            .read_state()
            .cached
            .as_ref()
            .is_some_and(|cached| now.saturating_sub(cached.fetched_at) < REFRESH_INTERVAL);
        !fresh && !self.is_in_retry_delay(now)
    }

    fn is_in_retry_delay(&self, now: Duration) -> bool {
        self.read_state().last_failure.as_ref().is_some_and(|(at, _)| now.saturating_sub(*at) < RETRY_DELAY)
    }

    /// Claims a fetch that an unknown key causes. A claimed fetch counts, whatever its result.
    fn claim_unknown_kid_fetch(&self, caller: Option<&ClientId>, now: Duration) -> Result<(), RetryLater> {
        let mut state = self.state.write();
        let fetches = &mut state.unknown_kid_fetches;
        fetches.retain(|(_, at)| now.saturating_sub(*at) < UNKNOWN_KID_INTERVAL);
        let remaining = fetches.iter().map(|(other, at)| {
            let interval = if other.as_ref() == caller { UNKNOWN_KID_INTERVAL } else { MIN_FETCH_INTERVAL };
            interval.saturating_sub(now.saturating_sub(*at))
        });
        if let Some(retry_after) = remaining.max().filter(|remaining| !remaining.is_zero()) {
            let reason = "the key is unknown, and the keys were fetched a moment ago";
            return Err(RetryLater { reason, retry_after });
        }
        fetches.push((caller.cloned(), now));
        Ok(())
    }

    fn recent_failure(&self) -> Option<Outage> {
        let state = self.read_state();
        let (_, cause) = state.last_failure.as_ref()?;
        Some(Outage::during(OP_FETCH_JWKS)(format!("the last fetch failed and is not retried yet: {cause}")))
    }

    fn read_state(&self) -> RwLockReadGuard<'_, CacheState> {
        self.state.read()
    }
}

const OP_FETCH_JWKS: &str = "fetch the keys of the issuer";

/// A reason why an issuer's keys could not be fetched.
#[derive(Debug, Error)]
enum JwksError {
    #[error("{document} could not be fetched")]
    Fetch { document: &'static str, source: FetchError },
    #[error("the fetch took longer than {0:?}")]
    TimedOut(Duration),
    #[error("the metadata names another issuer; `issuer` must be exactly `{0}`")]
    IssuerMismatch(IssuerUrl),
    #[error("the metadata does not contain a valid `jwks_uri`")]
    MissingJwksUri,
    #[error("the issuer is not a URL to which a metadata path can be added")]
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
        let document = self.fetch_json(fetcher, &uri, "the key set").await?;
        Ok(JwkSet::try_from(document)?)
    }

    /// Reads `jwks_uri` from the metadata: OpenID Connect Discovery §4, or RFC 8414 §3 if the
    /// issuer does not serve the former.
    async fn discover_jwks_uri(&self, fetcher: &Fetcher) -> Result<Url, JwksError> {
        let issuer = &self.issuer;
        let oidc = Url::parse(&issuer.join("/.well-known/openid-configuration")).ok();
        let oidc = oidc.ok_or(JwksError::InvalidIssuerUrl)?;
        let metadata = match self.fetch_json(fetcher, &oidc, "the metadata").await {
            Err(JwksError::Fetch { source: FetchError::UnexpectedStatus(_) | FetchError::NotJson, .. }) => {
                let oauth = oauth_metadata_url(issuer).ok_or(JwksError::InvalidIssuerUrl)?;
                self.fetch_json(fetcher, &oauth, "the metadata").await?
            }
            result => result?,
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

    async fn fetch_json(&self, fetcher: &Fetcher, url: &Url, document: &'static str) -> Result<Value, JwksError> {
        fetcher.fetch_json(url, &self.networks).await.map_err(|source| JwksError::Fetch { document, source })
    }
}

/// Returns the metadata URL of RFC 8414 §3.1: the well-known part goes between the host and the
/// path of the issuer.
fn oauth_metadata_url(issuer: &IssuerUrl) -> Option<Url> {
    let mut url = Url::parse(issuer.as_str()).ok()?;
    let path = url.path().trim_end_matches('/').to_owned();
    url.set_path(&format!("/.well-known/oauth-authorization-server{path}"));
    Some(url)
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
