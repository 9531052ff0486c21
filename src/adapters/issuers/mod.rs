//! Keys of other parties: fetched, cached, refreshed, and used to verify signatures.

mod issuer_keys;
mod verifiers;

use std::{
    collections::{BTreeSet, HashMap},
    fmt,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use parking_lot::RwLock;
use serde_json::{Map, Value, json};

use issuer_keys::{FetchContext, IssuerKeys};
use verifiers::VerifierCache;

use crate::{
    adapters::{
        fetch::{FetchOptions, Fetcher},
        jose::{self, VerifierSet},
    },
    domain::{
        jose::{
            jwk::{JwkSet, JwsAlgorithm},
            jws::UnverifiedJws,
        },
        registry::issuer::{IssuerKeyId, KeySource, TrustedIssuer},
        uri::IssuerUrl,
    },
    ports::{Clock, ErrorChain, FetchCaller, SignatureError, TrustedKeys},
};

/// The maximum number of concurrent fetches.
const MAX_CONCURRENT_FETCHES: usize = 8;

/// The keys of issuers and clients.
pub struct JwksCache {
    context: FetchContext,
    issuers: RwLock<HashMap<String, Arc<IssuerKeys>>>,
    inline_verifiers: VerifierCache,
    dummy_verifier: VerifierSet,
    withdrawn: RwLock<BTreeSet<IssuerKeyId>>,
}

impl JwksCache {
    /// Creates an empty cache; see [`JwksCache::refresh`].
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, options: impl Into<FetchOptions>) -> Self {
        let options = options.into();
        let timeout = options.limits.timeout;
        let fetcher = Arc::new(Fetcher::new(options));
        Self {
            context: FetchContext { clock, fetcher, timeout },
            issuers: RwLock::default(),
            inline_verifiers: VerifierCache::default(),
            dummy_verifier: dummy_verifier(),
            withdrawn: RwLock::default(),
        }
    }

    /// Fetches the keys of the issuers whose keys are missing or due for a refresh, and drops the
    /// keys of all other issuers. It is called at the start and every few seconds. A failure
    /// is logged, and appears in [`TrustedKeys::unreachable_issuers`].
    pub async fn refresh(&self, issuers: impl IntoIterator<Item = &TrustedIssuer> + Send) {
        let needs_fetch = |issuer: &&TrustedIssuer| !issuer.disabled && !matches!(issuer.keys, KeySource::Inline(_));
        let cached: Vec<_> = issuers.into_iter().filter(needs_fetch).map(|issuer| self.issuer_keys(issuer)).collect();
        self.issuers.write().retain(|_, issuer_keys| cached.iter().any(|current| Arc::ptr_eq(current, issuer_keys)));
        stream::iter(cached)
            .for_each_concurrent(MAX_CONCURRENT_FETCHES, |issuer_keys| async move {
                if let Err(outage) = issuer_keys.refresh_if_due(&self.context).await {
                    tracing::warn!(issuer = issuer_keys.issuer(), error = %ErrorChain(&outage), "issuer keys not refreshed");
                }
            })
            .await;
    }

    /// Returns the `kid`s of the issuer's keys that must not be used.
    fn withdrawn_keys_of(&self, issuer: &TrustedIssuer) -> BTreeSet<String> {
        let withdrawn = self.withdrawn.read();
        withdrawn.iter().filter(|key| key.issuer == issuer.issuer).map(|key| key.kid.clone()).collect()
    }

    /// Returns the cached keys of an issuer. A changed key source, algorithm or network in its
    /// entry replaces them.
    fn issuer_keys(&self, issuer: &TrustedIssuer) -> Arc<IssuerKeys> {
        let known = |cached: &HashMap<String, Arc<IssuerKeys>>| {
            cached.get(issuer.issuer.as_str()).filter(|issuer_keys| issuer_keys.is_current_for(issuer)).cloned()
        };
        if let Some(issuer_keys) = known(&self.issuers.read()) {
            return issuer_keys;
        }
        let mut cached = self.issuers.write();
        known(&cached).unwrap_or_else(|| {
            let issuer_keys = Arc::new(IssuerKeys::new(issuer));
            cached.insert(issuer.issuer.as_str().to_owned(), Arc::clone(&issuer_keys));
            issuer_keys
        })
    }
}

#[async_trait]
impl TrustedKeys for JwksCache {
    async fn verify_with_issuer(
        &self,
        issuer: &TrustedIssuer,
        token: UnverifiedJws<'_>,
        caller: FetchCaller<'_>,
    ) -> Result<Map<String, Value>, SignatureError> {
        let algorithm = jose::check_algorithm(&token, &issuer.algorithms)?;
        let withdrawn = self.withdrawn_keys_of(issuer);
        if token.header().kid.as_ref().is_some_and(|kid| withdrawn.contains(kid)) {
            return Err(SignatureError::WithdrawnKey);
        }
        if let KeySource::Inline(keys) = &issuer.keys {
            let keys = self.inline_verifiers.get_or_build(keys, &issuer.algorithms);
            keys.verify_without(&withdrawn, algorithm, &token)?;
            return Ok(token.into_payload());
        }
        let issuer_keys = self.issuer_keys(issuer);
        let keys = issuer_keys.get_or_fetch(&self.context).await?;
        let names_key = token.header().kid.is_some();
        match keys.verify_without(&withdrawn, algorithm, &token) {
            // Without `kid`, a signature by a new key fails as a forged one does.
            Err(error)
                if matches!(error, SignatureError::UnknownKey)
                    || (matches!(error, SignatureError::InvalidSignature) && !names_key) =>
            {
                let newer = issuer_keys.fetch_newer_keys(&self.context, keys, caller).await?;
                newer.verify_without(&withdrawn, algorithm, &token)?;
            }
            result => result?,
        }
        Ok(token.into_payload())
    }

    fn verify_with_keys(
        &self,
        keys: &JwkSet,
        algorithms: &[JwsAlgorithm],
        token: UnverifiedJws<'_>,
    ) -> Result<Map<String, Value>, SignatureError> {
        let result = jose::check_algorithm(&token, algorithms)
            .and_then(|algorithm| self.inline_verifiers.get_or_build(keys, algorithms).verify(algorithm, &token));
        match result {
            Ok(()) => Ok(token.into_payload()),
            Err(error) => {
                // The invalid token of a known client takes as long as that of an unknown one.
                if matches!(error, SignatureError::AlgorithmNotAllowed | SignatureError::UnknownKey) {
                    self.verify_dummy(token);
                }
                Err(error)
            }
        }
    }

    fn verify_dummy(&self, token: UnverifiedJws<'_>) {
        self.dummy_verifier.verify_dummy(&token);
    }

    fn discard_issuer_keys(&self, issuer: &IssuerUrl) {
        if let Some(issuer_keys) = self.issuers.read().get(issuer.as_str()) {
            issuer_keys.discard();
        }
    }

    fn set_withdrawn_keys(&self, withdrawn: BTreeSet<IssuerKeyId>) {
        *self.withdrawn.write() = withdrawn;
    }

    fn issuer_key_ages(&self) -> Vec<(String, Duration)> {
        let now = self.context.clock.monotonic();
        let cached = self.issuers.read();
        let ages = cached.values().filter_map(|keys| Some((keys.issuer().to_owned(), keys.age(now)?)));
        ages.collect()
    }

    fn unreachable_issuers(&self) -> Vec<String> {
        let cached = self.issuers.read();
        let mut names: Vec<_> = cached
            .values()
            .filter(|issuer_keys| issuer_keys.is_unreachable())
            .map(|issuer_keys| issuer_keys.issuer().to_owned())
            .collect();
        names.sort_unstable();
        names
    }
}

impl fmt::Debug for JwksCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwksCache").field("unreachable", &self.unreachable_issuers()).finish_non_exhaustive()
    }
}

/// Returns a verifier whose results are never used. Its key is the base point of P-256.
fn dummy_verifier() -> VerifierSet {
    let key = json!({"kty": "EC", "crv": "P-256",
        "x": "axfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpY", "y": "T-NC4v4af5uO5-tKfA-eFivOM1drMV7Oy7ZAaDe_UfU"});
    let keys = key.as_object().cloned().into_iter().collect();
    VerifierSet::build(&keys, &[JwsAlgorithm::ES256])
}
