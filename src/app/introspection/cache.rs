//! Tokens that were found good a moment ago: when one is asked about again, its signature need not be checked again, and
//! the answer is ready.
//!
//! What is kept can't change: which key of ours signed this very text, what stands in it, how it is told. What can change
//! is looked at by whoever finds a token here: each time, whether that key is still published, expiry, what the log says;
//! and each time that the registry was read anew, who is registered, and whether it offers all of what the token is for. And
//! only what was good is kept, so texts that are no good push nothing out; of good ones, those that are asked about again
//! outlast those that were asked about once.

use std::sync::{
    Arc,
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

/// A good token, without its verdict: that is not kept.
#[derive(Debug)]
pub(in crate::app) struct CachedToken<C> {
    /// What stands in it.
    pub(in crate::app) claims: C,
    /// By what it can be taken back.
    pub(in crate::app) revocation_keys: RevocationKeys,
    /// The key that signed it.
    pub(in crate::app) key: KeyId,
    /// What introspection says of it; nothing is said of an API token.
    pub(in crate::app) response: Bytes,
    /// The reading of the registry by which all of that was good when it was last looked at.
    valid_generation: AtomicU64,
    /// What it takes at most (bytes).
    size: usize,
}

/// The good tokens, by the digest of their text, within limits.
pub(in crate::app) struct VerifiedTokenCache(Option<Cache<TokenDigest, CacheEntry, Weigher>>);

#[derive(Clone)]
enum CacheEntry {
    /// An access token, for the resource that asked.
    Task(Arc<CachedToken<TaskTokenClaims>>),
    Api(Arc<CachedToken<ApiTokenClaims>>),
}

impl VerifiedTokenCache {
    pub(in crate::app) fn new(limits: MemoryLimits) -> Self {
        let (tokens, bytes) = (u64::from(limits.verified_tokens), limits.verified_bytes());
        // One limit holds both: nothing weighs less than its share. The cache divides its capacity by a power of two
        // and rounds up, so the last bits are left out.
        let weight = Weigher { min_weight: bytes.checked_div(tokens).unwrap_or_default().max(1) };
        let is_on = tokens > 0 && bytes > 0;
        Self(is_on.then(|| Cache::with_weighter(limits.verified_tokens as usize, bytes & !0xfff, weight)))
    }

    pub(in crate::app) fn get_task(&self, digest: &TokenDigest) -> Option<Arc<CachedToken<TaskTokenClaims>>> {
        match self.0.as_ref()?.get(digest)? {
            CacheEntry::Task(known) => Some(known),
            CacheEntry::Api(_) => None,
        }
    }

    pub(in crate::app) fn get_api(&self, digest: &TokenDigest) -> Option<Arc<CachedToken<ApiTokenClaims>>> {
        match self.0.as_ref()?.get(digest)? {
            CacheEntry::Api(known) => Some(known),
            CacheEntry::Task(_) => None,
        }
    }

    pub(in crate::app) fn insert_task(&self, digest: TokenDigest, token: CachedToken<TaskTokenClaims>) {
        self.insert(digest, CacheEntry::Task(Arc::new(token)));
    }

    pub(in crate::app) fn insert_api(&self, digest: TokenDigest, token: Arc<CachedToken<ApiTokenClaims>>) {
        self.insert(digest, CacheEntry::Api(token));
    }

    fn insert(&self, digest: TokenDigest, entry: CacheEntry) {
        if let Some(cache) = &self.0 {
            cache.insert(digest, entry);
        }
    }

    /// Drops what has expired.
    pub(in crate::app) fn evict_expired(&self, now: Timestamp) {
        if let Some(cache) = &self.0 {
            cache.retain(|_, kept| !kept.expiry().has_passed(now));
        }
    }

    /// How many there are, and how many bytes they take at most.
    pub(in crate::app) fn size(&self) -> (usize, u64) {
        self.0.as_ref().map_or((0, 0), |cache| (cache.len(), cache.weight()))
    }
}

impl CacheEntry {
    fn expiry(&self) -> Timestamp {
        match self {
            Self::Task(known) => known.claims.exp,
            Self::Api(known) => known.claims.exp,
        }
    }
}

#[derive(Clone)]
struct Weigher {
    /// What the smallest one weighs, so that there are not too many.
    min_weight: u64,
}

impl Weighter<TokenDigest, CacheEntry> for Weigher {
    fn weight(&self, _: &TokenDigest, kept: &CacheEntry) -> u64 {
        let size = match kept {
            CacheEntry::Task(known) => known.size,
            CacheEntry::Api(known) => known.size,
        };
        self.min_weight.max(size as u64)
    }
}

/// The token's own place and that in the table, the nodes of a few small sets, what the allocator rounds up.
const BASE_WEIGHT: usize = 3072;
/// A permission, beside its text.
const PERMISSION_WEIGHT: usize = 2 * size_of::<Permission>() + 512;
/// A node of a map has room for eleven, and five at least are in each but the first.
const RULES_NODE_WEIGHT: usize = 11 * (size_of::<Rule>() + size_of::<String>()) + 128;
/// The same, of an argument that is an object.
const MEMBERS_NODE_WEIGHT: usize = 11 * (size_of::<Arg>() + size_of::<String>()) + 128;
/// A value in a list, which may have grown to twice what it needs.
const ARGUMENT_WEIGHT: usize = 2 * size_of::<Arg>() + 32;
/// A member or an item of what is told along (`rctx`, `tctx`).
const VALUE_WEIGHT: usize = 3 * (size_of::<Value>() + size_of::<String>()) + 64;

impl CachedToken<TaskTokenClaims> {
    /// `length` is that of the token: no text in it is longer, and each is kept twice at most.
    /// `good_by` is the reading of the registry by which all of it is good.
    pub(in crate::app) fn from_task(
        claims: TaskTokenClaims,
        names: RevocationKeys,
        key: KeyId,
        answer: Bytes,
        length: usize,
        generation: u64,
    ) -> Self {
        let permissions = claims.authorization_details.iter().map(|permission| {
            let rules = &permission.constraints.arguments;
            PERMISSION_WEIGHT
                + count_nodes(rules.len()) * RULES_NODE_WEIGHT
                + rules.values().map(weigh_rule).sum::<usize>()
        });
        let context_values = count_values(&claims.rctx) + claims.tctx.details.as_ref().map_or(0, count_values);
        let size = BASE_WEIGHT + 3 * length + answer.len() + permissions.sum::<usize>() + context_values * VALUE_WEIGHT;
        Self {
            claims,
            revocation_keys: names,
            key,
            response: answer,
            valid_generation: AtomicU64::new(generation),
            size,
        }
    }

    /// Whether all of it was found good by this reading of the registry, when it was last looked at.
    pub(in crate::app) fn is_valid_for(&self, generation: u64) -> bool {
        self.valid_generation.load(Ordering::Relaxed) == generation
    }

    /// All of it is good by this reading of the registry.
    pub(in crate::app) fn mark_valid_for(&self, generation: u64) {
        self.valid_generation.store(generation, Ordering::Relaxed);
    }
}

impl CachedToken<ApiTokenClaims> {
    pub(in crate::app) fn from_api(claims: ApiTokenClaims, names: RevocationKeys, key: KeyId, length: usize) -> Self {
        Self {
            claims,
            revocation_keys: names,
            key,
            response: Bytes::new(),
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
    use std::hint::black_box;

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

    fn cached_token(text: &str, claims: TaskTokenClaims) -> CachedToken<TaskTokenClaims> {
        let (names, key) = (claims.revocation_keys(), "a-key-of-ours".parse().unwrap());
        // A token is its claims in base64, and some more.
        CachedToken::from_task(claims, names, key, Bytes::from(text.to_owned()), text.len() / 3 * 4 + 120, 1)
    }

    fn digest(n: usize) -> TokenDigest {
        TokenDigest::of(&n.to_string()).unwrap()
    }

    fn limits(verified_tokens: u32, verified_megabytes: u32) -> MemoryLimits {
        MemoryLimits { verified_tokens, verified_megabytes }
    }

    /// Tokens that are as large in memory as they can be made for their length.
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
        for told in [json!({"n": numbers}), json!({"n": vec![json!({}); 1000]}), json!({"o": members})] {
            shapes.push(claims(|claims| claims["rctx"] = told.clone()));
            shapes.push(claims(|claims| claims["tctx"]["details"] = told));
        }
        for (n, (text, claims)) in shapes.into_iter().enumerate() {
            // Parsed as it is on a request, so with the room that growing leaves.
            drop(claims);
            let mut kept = None;
            let info = allocation_counter::measure(|| {
                let claims = serde_json::from_str::<TaskTokenClaims>(&text).unwrap();
                kept = Some(Arc::new(cached_token(&text, claims)));
            });
            let kept = kept.unwrap();
            let taken = usize::try_from(info.bytes_current).unwrap();
            // Sixteen bytes an allocation for the allocator's own book-keeping and rounding.
            assert!(taken + 1024 <= kept.size, "shape {n}: {taken} bytes, and it says {}", kept.size);
            assert!(kept.size <= 8 * taken + 8192, "shape {n}: {taken} bytes, and it says {}", kept.size);
            black_box(kept);
        }
    }

    #[test]
    fn zero_limit_disables_the_cache() {
        for none in [limits(0, 128), limits(100, 0)] {
            let verified = VerifiedTokenCache::new(none);
            let (text, claims) = claims(|_| {});
            verified.insert_task(digest(1), cached_token(&text, claims));
            assert!(verified.get_task(&digest(1)).is_none());
            assert_eq!(verified.size(), (0, 0));
        }
    }

    #[test]
    fn token_kinds_are_kept_apart() {
        let verified = VerifiedTokenCache::new(MemoryLimits::default());
        let (text, claims) = claims(|_| {});
        verified.insert_task(digest(1), cached_token(&text, claims));
        assert!(verified.get_task(&digest(1)).is_some() && verified.get_api(&digest(1)).is_none());
        assert!(verified.get_task(&digest(2)).is_none());
    }

    /// A crowd of good tokens, each asked about once, does not drive out those that are asked about again and again.
    #[test]
    fn burst_does_not_evict_tokens_in_use() {
        let verified = VerifiedTokenCache::new(limits(4096, 64));
        let (text, claims) = claims(|_| {});
        let keep = |n: usize| verified.insert_task(digest(n), cached_token(&text, claims.clone()));
        (0..1000).for_each(keep);
        for n in 1000..100_000 {
            keep(n);
            // One question in ten is about a token of before.
            if n % 10 == 0 {
                black_box(verified.get_task(&digest(n / 10 % 1000)));
            }
        }
        let left = (0..1000).filter(|n| verified.get_task(&digest(*n)).is_some()).count();
        assert!(left >= 950, "{left} of 1000 are left");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn limits_are_never_exceeded(
            tokens in 1_u32..3000,
            megabytes in 1_u32..4,
            flood in proptest::collection::vec((0_usize..5000, 0_usize..40), 1..3000),
        ) {
            let verified = VerifiedTokenCache::new(limits(tokens, megabytes));
            let small = claims(|_| {});
            let large = claims(|claims| claims["authorization_details"] = (0..64).map(|n| detail(n, &json!({"a": {"min": 1}}))).collect());
            for (n, kind) in flood {
                let (text, claims) = if kind == 0 { &large } else { &small };
                verified.insert_task(digest(n), cached_token(text, claims.clone()));
                let (count, bytes) = verified.size();
                prop_assert!(count <= tokens as usize, "{count} of {tokens}");
                prop_assert!(bytes <= u64::from(megabytes) * MEBIBYTE, "{bytes}");
            }
        }
    }
}
