//! Cache of verified tokens: when the same token is presented again, neither its signature nor its
//! encoding is computed again.
//!
//! A cached fact can't change: which key signed this exact text, its claims, and their encoding. A
//! fact that can change is checked on every use: whether the key is still published, the expiry,
//! and the standing by the log. Whether all parties are registered and active, and whether the
//! registry offers all that the token is for, is checked once for each registry generation.
//!
//! Only tokens that were valid are cached, so invalid texts evict nothing. Tokens that are
//! presented repeatedly outlast tokens that were presented once.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};
use serde_json::{Map, Value};

use crate::domain::{
    authority::{Arg, Permission, Rule},
    id::KeyId,
    revocation::RevocationKeys,
    settings::MemoryLimits,
    time::Timestamp,
    token::{ApiTokenClaims, TaskTokenClaims, TokenDigest},
};

/// A token that was valid when it was cached. Whether it still is, is checked on every use.
#[derive(Debug)]
pub(in crate::app) struct CachedToken<C> {
    /// The claims of the token.
    pub(in crate::app) claims: C,
    /// The keys under which the token can be revoked.
    pub(in crate::app) revocation_keys: RevocationKeys,
    /// The key that signed it.
    pub(in crate::app) key: KeyId,
    /// The encoded claims, once a caller has prepared them ([`encoded`](CachedToken::encoded)).
    encoding: OnceLock<Bytes>,
    /// The length of the token (bytes). An encoding that is longer is not kept.
    length: usize,
    /// The registry generation by which the token passed the registry's checks most recently.
    valid_generation: AtomicU64,
    /// The maximum memory that the token takes (bytes).
    size: usize,
}

/// The verified tokens, by the digest of their text, within the limits on their number and their
/// memory.
pub(in crate::app) struct VerifiedTokenCache {
    /// `None` if a limit is zero.
    entries: Option<Cache<TokenDigest, CacheEntry, Weigher>>,
}

#[derive(Clone)]
enum CacheEntry {
    /// An access token, with its resource as audience.
    Task(Arc<CachedToken<TaskTokenClaims>>),
    Api(Arc<CachedToken<ApiTokenClaims>>),
}

impl VerifiedTokenCache {
    pub(in crate::app) fn new(limits: MemoryLimits) -> Self {
        let (tokens, bytes) = (u64::from(limits.verified_tokens), limits.verified_bytes());
        // One weight limits both: no token weighs less than its share of the bytes. The cache
        // divides its capacity by a power of two and rounds up, so the lowest bits are cleared.
        let weigher = Weigher { min_weight: bytes.checked_div(tokens).unwrap_or_default().max(1) };
        let is_enabled = tokens > 0 && bytes > 0;
        let entries =
            is_enabled.then(|| Cache::with_weighter(limits.verified_tokens as usize, bytes & !0xfff, weigher));
        Self { entries }
    }

    pub(in crate::app) fn get_task(&self, digest: &TokenDigest) -> Option<Arc<CachedToken<TaskTokenClaims>>> {
        match self.entries.as_ref()?.get(digest)? {
            CacheEntry::Task(token) => Some(token),
            CacheEntry::Api(_) => None,
        }
    }

    pub(in crate::app) fn get_api(&self, digest: &TokenDigest) -> Option<Arc<CachedToken<ApiTokenClaims>>> {
        match self.entries.as_ref()?.get(digest)? {
            CacheEntry::Api(token) => Some(token),
            CacheEntry::Task(_) => None,
        }
    }

    pub(in crate::app) fn insert_task(&self, digest: TokenDigest, token: Arc<CachedToken<TaskTokenClaims>>) {
        self.insert(digest, CacheEntry::Task(token));
    }

    pub(in crate::app) fn insert_api(&self, digest: TokenDigest, token: Arc<CachedToken<ApiTokenClaims>>) {
        self.insert(digest, CacheEntry::Api(token));
    }

    fn insert(&self, digest: TokenDigest, entry: CacheEntry) {
        if let Some(cache) = &self.entries {
            cache.insert(digest, entry);
        }
    }

    /// Evicts the tokens that have expired.
    pub(in crate::app) fn evict_expired(&self, now: Timestamp) {
        if let Some(cache) = &self.entries {
            cache.retain(|_, entry| !entry.expiry().has_passed(now));
        }
    }

    /// Returns the number of tokens and the maximum memory that they take (bytes).
    pub(in crate::app) fn size(&self) -> (usize, u64) {
        self.entries.as_ref().map_or((0, 0), |cache| (cache.len(), cache.weight()))
    }
}

impl CacheEntry {
    fn expiry(&self) -> Timestamp {
        match self {
            Self::Task(token) => token.claims.exp,
            Self::Api(token) => token.claims.exp,
        }
    }
}

#[derive(Clone)]
struct Weigher {
    /// The weight of the smallest token, which limits the number of tokens.
    min_weight: u64,
}

impl Weighter<TokenDigest, CacheEntry> for Weigher {
    fn weight(&self, _: &TokenDigest, entry: &CacheEntry) -> u64 {
        let size = match entry {
            CacheEntry::Task(token) => token.size,
            CacheEntry::Api(token) => token.size,
        };
        self.min_weight.max(size as u64)
    }
}

/// The entry itself, its slot in the table, the nodes of a few small sets, and the rounding of the
/// allocator.
const BASE_WEIGHT: usize = 3072;
/// A permission, without its text.
const PERMISSION_WEIGHT: usize = 2 * size_of::<Permission>() + 512;
/// A B-tree node of a map of rules: it has capacity for eleven entries, and all but the root hold
/// at least five.
const RULES_NODE_WEIGHT: usize = 11 * (size_of::<Rule>() + size_of::<String>()) + 128;
/// A B-tree node of an argument that is an object.
const MEMBERS_NODE_WEIGHT: usize = 11 * (size_of::<Arg>() + size_of::<String>()) + 128;
/// A value in a list whose capacity may be twice its length.
const ARGUMENT_WEIGHT: usize = 2 * size_of::<Arg>() + 32;
/// A member or an item of the contexts (`rctx`, `tctx`).
const VALUE_WEIGHT: usize = 3 * (size_of::<Value>() + size_of::<String>()) + 64;

impl CachedToken<TaskTokenClaims> {
    /// Creates an entry for a token of `length` bytes that passes the checks of registry generation
    /// `generation`. The texts in the claims are no longer than the token together, and each is
    /// kept at most twice. The encoding is limited to the length of the token.
    pub(in crate::app) fn from_task(
        claims: TaskTokenClaims,
        revocation_keys: RevocationKeys,
        key: KeyId,
        length: usize,
        generation: u64,
    ) -> Self {
        let permissions = claims.authorization_details.iter().map(|permission| {
            let rules = &permission.constraints.arguments;
            PERMISSION_WEIGHT
                + permission.resource.as_str().len()
                + permission.tool().map_or(0, |tool| tool.as_str().len())
                + count_nodes(rules.len()) * RULES_NODE_WEIGHT
                + rules.values().map(weigh_rule).sum::<usize>()
        });
        let context_values = count_values(&claims.rctx) + claims.tctx.details.as_ref().map_or(0, count_values);
        let size = BASE_WEIGHT + 4 * length + permissions.sum::<usize>() + context_values * VALUE_WEIGHT;
        Self {
            claims,
            revocation_keys,
            key,
            encoding: OnceLock::new(),
            length,
            valid_generation: AtomicU64::new(generation),
            size,
        }
    }

    /// Returns the kept encoding, or encodes the claims and keeps the result. Two callers may both
    /// encode at the same time; the results are equal, and one of them is kept.
    pub(super) fn encoded<E>(&self, encode: impl FnOnce(&TaskTokenClaims) -> Result<Bytes, E>) -> Result<Bytes, E> {
        if let Some(encoding) = self.encoding.get() {
            return Ok(encoding.clone());
        }
        let encoding = encode(&self.claims)?;
        if encoding.len() <= self.length {
            return Ok(self.encoding.get_or_init(|| encoding).clone());
        }
        Ok(encoding)
    }

    /// Whether the token passed the checks of this registry generation.
    pub(in crate::app) fn is_valid_for(&self, generation: u64) -> bool {
        self.valid_generation.load(Ordering::Relaxed) == generation
    }

    /// Records that the token passes the checks of this registry generation.
    pub(in crate::app) fn mark_valid_for(&self, generation: u64) {
        self.valid_generation.store(generation, Ordering::Relaxed);
    }
}

impl CachedToken<ApiTokenClaims> {
    pub(in crate::app) fn from_api(
        claims: ApiTokenClaims,
        revocation_keys: RevocationKeys,
        key: KeyId,
        length: usize,
    ) -> Self {
        Self {
            claims,
            revocation_keys,
            key,
            encoding: OnceLock::new(),
            length,
            valid_generation: AtomicU64::new(0),
            size: BASE_WEIGHT + 3 * length,
        }
    }
}

fn count_nodes(members: usize) -> usize {
    members.div_ceil(5)
}

fn weigh_rule(rule: &Rule) -> usize {
    let lists = [rule.one_of.as_deref(), Some(&rule.not_one_of), rule.subset.as_deref()];
    lists.into_iter().flatten().flatten().map(weigh_argument).sum()
}

fn weigh_argument(argument: &Arg) -> usize {
    let parts = match argument {
        Arg::List(items) => items.iter().map(weigh_argument).sum(),
        Arg::Object(members) => {
            count_nodes(members.len()) * MEMBERS_NODE_WEIGHT + members.values().map(weigh_argument).sum::<usize>()
        }
        Arg::Null | Arg::Bool(_) | Arg::Number(_) | Arg::Text(_) => 0,
    };
    ARGUMENT_WEIGHT + parts
}

fn count_values(members: &Map<String, Value>) -> usize {
    members.values().map(count_value).sum()
}

fn count_value(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + count_values(members),
        Value::Array(items) => 1 + items.iter().map(count_value).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, hint::black_box};

    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn claims(change: impl FnOnce(&mut Value)) -> (String, TaskTokenClaims) {
        let id = "01970000-0000-7000-8000-000000000001";
        let mut claims = json!({
            "iss": "https://sts.example.com", "aud": "https://files.example.com/mcp", "sub": "alice",
            "sub_iss": "https://login.example.com", "client_id": "planner", "iat": 1_795_200_000, "exp": 1_795_200_300,
            "jti": id, "txn": id, "lineage": [id], "rev": 4711, "scope": "files:read",
            "authorization_details": [{"type": "mcp_tool", "locations": ["https://files.example.com/mcp"],
                "actions": ["tools/call"], "identifier": "read_file"}],
            "act": {"iss": "https://sts.example.com", "sub": "planner", "sub_profile": "ai_agent"},
            "task": {"id": id, "issuer": "https://sts.example.com", "authority_hash": "sha-256:x"},
            "tctx": {"purpose": "quarterly report"}, "rctx": {},
        });
        change(&mut claims);
        let text = claims.to_string();
        (text.clone(), serde_json::from_value(claims).unwrap())
    }

    fn cached_token(text: &str, claims: TaskTokenClaims) -> Arc<CachedToken<TaskTokenClaims>> {
        let (revocation_keys, key) = (claims.revocation_keys(), "own-key".parse().unwrap());
        // A token is longer than its claims in base64url. Its header and its signature take more
        // than 120 characters.
        let token = CachedToken::from_task(claims, revocation_keys, key, text.len() / 3 * 4 + 120, 1);
        token.encoded(|_| Ok::<_, Infallible>(Bytes::from(text.to_owned()))).unwrap();
        assert!(token.encoding.get().is_some());
        Arc::new(token)
    }

    fn digest(n: usize) -> TokenDigest {
        TokenDigest::of(&n.to_string()).unwrap()
    }

    fn limits(verified_tokens: u32, verified_megabytes: u32) -> MemoryLimits {
        MemoryLimits { verified_tokens, verified_megabytes }
    }

    /// A permission for tokens that are as large in memory as possible for their length.
    fn detail(n: usize, constraints: &Value) -> Value {
        json!({"type": "mcp_tool", "locations": [format!("https://r{n}.example.com")], "actions": ["tools/call"],
            "identifier": format!("t{n}"), "constraints": constraints})
    }

    #[test]
    fn memory_stays_within_the_declared_size() {
        let many = |count: usize, constraints: &Value| (0..count).map(|n| detail(n, constraints)).collect::<Value>();
        let numbers = (0..256).collect::<Vec<_>>();
        let members = (0..300).map(|n| (format!("m{n}"), json!(n))).collect::<Map<_, _>>();
        let arguments = (0..60).map(|n| (format!("a{n}"), json!({"min": n}))).collect::<Map<_, _>>();
        let mut shapes = vec![claims(|_| {})];
        for details in [
            many(64, &json!({})),
            many(64, &json!({"a": {"equals": 1}})),
            many(1, &json!({"a": {"one_of": numbers}})),
            many(1, &json!({"a": {"equals": numbers}})),
            many(1, &json!({"a": {"equals": members}})),
            many(1, &json!({"a": {"equals": [members, [[[1]]], [], {}, {}, {}]}})),
            many(8, &Value::Object(arguments)),
        ] {
            shapes.push(claims(|claims| claims["authorization_details"] = details));
        }
        for context in [json!({"n": numbers}), json!({"n": vec![json!({}); 1000]}), json!({"o": members})] {
            shapes.push(claims(|claims| claims["rctx"] = context.clone()));
            shapes.push(claims(|claims| claims["tctx"]["details"] = context));
        }
        for (n, (text, claims)) in shapes.into_iter().enumerate() {
            // Parsed as on a request, so with the spare capacity that growing leaves.
            drop(claims);
            let mut token = None;
            let info = allocation_counter::measure(|| {
                let claims = serde_json::from_str::<TaskTokenClaims>(&text).unwrap();
                token = Some(cached_token(&text, claims));
            });
            let token = token.unwrap();
            let allocated = usize::try_from(info.bytes_current).unwrap();
            // The margin covers the bookkeeping and the rounding of the allocator.
            assert!(allocated + 1024 <= token.size, "shape {n}: {allocated} bytes, declared {}", token.size);
            assert!(token.size <= 8 * allocated + 8192, "shape {n}: {allocated} bytes, declared {}", token.size);
            black_box(token);
        }
    }

    #[test]
    fn zero_limit_disables_the_cache() {
        for disabled in [limits(0, 128), limits(100, 0)] {
            let cache = VerifiedTokenCache::new(disabled);
            let (text, claims) = claims(|_| {});
            cache.insert_task(digest(1), cached_token(&text, claims));
            assert!(cache.get_task(&digest(1)).is_none());
            assert_eq!(cache.size(), (0, 0));
        }
    }

    #[test]
    fn token_kinds_are_kept_apart() {
        let cache = VerifiedTokenCache::new(MemoryLimits::default());
        let (text, claims) = claims(|_| {});
        cache.insert_task(digest(1), cached_token(&text, claims));
        assert!(cache.get_task(&digest(1)).is_some() && cache.get_api(&digest(1)).is_none());
        assert!(cache.get_task(&digest(2)).is_none());
    }

    /// A burst of valid tokens, each presented once, does not evict tokens that are presented
    /// repeatedly.
    #[test]
    fn burst_does_not_evict_tokens_in_use() {
        let cache = VerifiedTokenCache::new(limits(4096, 64));
        let (text, claims) = claims(|_| {});
        let insert = |n: usize| cache.insert_task(digest(n), cached_token(&text, claims.clone()));
        (0..1000).for_each(insert);
        for n in 1000..100_000 {
            insert(n);
            // One introspection in ten is of an older token.
            if n % 10 == 0 {
                black_box(cache.get_task(&digest(n / 10 % 1000)));
            }
        }
        let remaining = (0..1000).filter(|n| cache.get_task(&digest(*n)).is_some()).count();
        assert!(remaining >= 950, "{remaining} of 1000 remain");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn limits_are_never_exceeded(
            tokens in 1_u32..3000,
            megabytes in 1_u32..4,
            tokens_sent in proptest::collection::vec((0_usize..5000, 0_usize..40), 1..3000),
        ) {
            let cache = VerifiedTokenCache::new(limits(tokens, megabytes));
            let small = claims(|_| {});
            let large = claims(|claims| claims["authorization_details"] = (0..64).map(|n| detail(n, &json!({"a": {"min": 1}}))).collect());
            for (n, kind) in tokens_sent {
                let (text, claims) = if kind == 0 { &large } else { &small };
                cache.insert_task(digest(n), cached_token(text, claims.clone()));
                let (count, bytes) = cache.size();
                prop_assert!(count <= tokens as usize, "{count} of {tokens}");
                prop_assert!(bytes <= u64::from(megabytes) * MEBIBYTE, "{bytes}");
            }
        }
    }
}
