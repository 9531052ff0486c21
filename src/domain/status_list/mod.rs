//! Status lists (draft-ietf-oauth-status-list): the status of each token in two bits, for verifiers
//! that do not introspect every token.
//!
//! Tokens that expire at about the same time share a shard, so that a shard expires as a whole. A
//! token has a number in its shard. A list covers a fixed range of these numbers and is always
//! complete, so that a list fetched before a token was issued already has an index for it.

mod bits;

use std::{fmt, str::FromStr};

use ring::{
    digest::{SHA256, digest},
    hmac,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use bits::{StatusBits, Width, gzip};

use crate::domain::{
    encode_base64url,
    revocation::Standing,
    settings::{MAX_CLOCK_SKEW, TOKEN_LIFETIME_CAP},
    time::{Lifetime, Timestamp},
    uri::IssuerUrl,
};

/// The `typ` of a status list token (§5.1).
pub const TYP_STATUS_LIST: &str = "statuslist+jwt";
/// The number of indices in a list: 64 KiB before compression.
pub const LIST_SIZE: u64 = 1 << 18;
/// The number of indices that a replica reserves at a time.
pub const INDEX_BLOCK_SIZE: u64 = 1024;
/// The tokens of a shard expire within this many seconds.
const SHARD_SPAN_SECONDS: i64 = 300;
/// How long a list stays available after its last token expired, for verifiers whose clocks are
/// behind.
pub const LIST_EXPIRY_GRACE: Lifetime = Lifetime::minutes(5);

/// How long a shard is remembered after its last token expired. This exceeds the maximum clock
/// skew, so that a shard never restarts.
pub const SHARD_RETENTION: Lifetime = Lifetime::hours(24);

/// `[status_list]`: whether tokens have an index in a list, and how old a list may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusListSettings {
    /// Whether issued tokens have an index in a list.
    pub enabled: bool,
    /// The time to live of a list, after which a verifier should fetch it again (seconds). A list
    /// expires after twice this time.
    pub ttl: Lifetime,
}

impl Default for StatusListSettings {
    fn default() -> Self {
        Self { enabled: true, ttl: Lifetime::seconds(10) }
    }
}

/// The tokens that expire within the same five minutes, identified by the end of that span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(i64);

impl Shard {
    /// Returns the shard of a token that expires at this time.
    #[must_use]
    pub const fn for_expiry(expires: Timestamp) -> Self {
        Self((expires.unix() + SHARD_SPAN_SECONDS - 1) / SHARD_SPAN_SECONDS * SHARD_SPAN_SECONDS)
    }

    /// Returns the shard that ends at this time, if it is the end of a span.
    #[must_use]
    pub fn ending_at(at: i64) -> Option<Self> {
        let is_one = at > 0 && at <= Timestamp::MAX.unix() && at % SHARD_SPAN_SECONDS == 0;
        is_one.then_some(Self(at))
    }

    /// Returns when the last token of the shard expires (seconds since 1970).
    #[must_use]
    pub const fn end(self) -> i64 {
        self.0
    }

    /// Returns the shard of tokens that expire a minute later, if it is a different one.
    #[must_use]
    pub fn following_shard(expires: Timestamp) -> Option<Self> {
        let next = Self::for_expiry(expires.saturating_add(Lifetime::minutes(1)));
        (next != Self::for_expiry(expires)).then_some(next)
    }

    /// Returns whether the lists of the shard are no longer needed.
    #[must_use]
    pub fn is_expired(self, now: Timestamp) -> bool {
        Timestamp::from_unix(self.0).saturating_add(LIST_EXPIRY_GRACE).has_passed(now)
    }

    /// Returns whether a token of this shard can have been issued by a replica whose clock is
    /// within the maximum skew.
    #[must_use]
    pub fn is_plausible(self, now: Timestamp) -> bool {
        let latest = now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW);
        self.0 <= Self::for_expiry(latest).0
    }
}

/// The index of a token, unique across all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusIndex {
    /// The shard.
    pub shard: Shard,
    /// The number in the shard.
    pub number: u64,
}

impl StatusIndex {
    /// Returns the list that contains this index.
    #[must_use]
    pub fn list_id(self) -> ListId {
        ListId { shard: self.shard, part: self.number / LIST_SIZE }
    }

    /// Returns the position in the list.
    #[must_use]
    pub fn idx(self) -> u64 {
        self.number % LIST_SIZE
    }

    /// Returns the `status` claim, for lists served by this issuer.
    #[must_use]
    pub fn to_claim(self, issuer: &IssuerUrl) -> StatusClaim {
        StatusClaim { status_list: StatusReference { idx: self.idx(), uri: self.list_id().uri(issuer) } }
    }
}

/// The id of a list: the end of its shard, and its part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId {
    /// The shard.
    pub shard: Shard,
    /// The part of the shard's numbers.
    pub part: u64,
}

impl ListId {
    /// Returns the URI of the list.
    #[must_use]
    pub fn uri(self, issuer: &IssuerUrl) -> String {
        issuer.join(&format!("/status-lists/{self}"))
    }

    /// Returns whether the list exists if this many blocks of its shard were reserved.
    #[must_use]
    pub fn is_allocated(self, blocks: u64) -> bool {
        self.part.checked_mul(LIST_SIZE).is_some_and(|first| first < blocks.saturating_mul(INDEX_BLOCK_SIZE))
    }

    /// Returns the lists of a shard of which this many blocks were reserved.
    pub fn iter_allocated(shard: Shard, blocks: u64) -> impl Iterator<Item = Self> {
        (0..blocks.saturating_mul(INDEX_BLOCK_SIZE).div_ceil(LIST_SIZE)).map(move |part| Self { shard, part })
    }
}

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard.0, self.part)
    }
}

/// The text is not the id of a status list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the id of a status list")]
pub struct ListIdError;

impl FromStr for ListId {
    type Err = ListIdError;

    /// Each list has exactly one id: only the output of [`Display`](fmt::Display) is accepted.
    fn from_str(text: &str) -> Result<Self, ListIdError> {
        let (end, part) = text.split_once('-').ok_or(ListIdError)?;
        let shard = end.parse().ok().and_then(Shard::ending_at).ok_or(ListIdError)?;
        let id = Self { shard, part: part.parse().map_err(|_| ListIdError)? };
        if id.to_string() == text { Ok(id) } else { Err(ListIdError) }
    }
}

/// Returns the numbers of a block in an order that depends on a secret seed. The indices of two
/// tokens of a block therefore do not reveal which was issued first, or how many were issued in
/// between.
#[must_use]
pub fn shuffle_block(block: u64, seed: &[u8; 32]) -> Vec<u64> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let first = block.saturating_mul(INDEX_BLOCK_SIZE);
    let tag = |n: u64| hmac::sign(&key, &n.to_be_bytes()).as_ref().to_vec();
    let mut numbers = (first..first.saturating_add(INDEX_BLOCK_SIZE)).map(|n| (tag(n), n)).collect::<Vec<_>>();
    numbers.sort_unstable();
    numbers.into_iter().map(|(_, n)| n).collect()
}

/// Returns the status of a token (§7.1): VALID, INVALID or SUSPENDED.
#[must_use]
pub const fn status_of(standing: Standing) -> u8 {
    match standing {
        Standing::Live => 0,
        Standing::Revoked => 1,
        Standing::Suspended => 2,
    }
}

/// The `status` claim of a token (§6.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusClaim {
    /// The reference to a status list.
    pub status_list: StatusReference,
}

/// The list and index of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusReference {
    /// The index.
    pub idx: u64,
    /// The URI of the list.
    pub uri: String,
}

/// The claims of a status list token (§5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusListClaims {
    /// The issuer: this server.
    pub iss: IssuerUrl,
    /// The URI of the list, as in the `uri` of a token.
    pub sub: String,
    /// The time of the statuses.
    pub iat: Timestamp,
    /// The expiry of the list.
    pub exp: Timestamp,
    /// The time to live in seconds.
    pub ttl: Lifetime,
    /// The statuses.
    pub status_list: EncodedStatusList,
}

/// Statuses as transmitted (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodedStatusList {
    /// The number of bits of a status.
    pub bits: u8,
    /// The compressed statuses.
    pub lst: String,
}

impl StatusListClaims {
    /// Builds the claims of a list with the current statuses.
    #[must_use]
    pub fn new(issuer: &IssuerUrl, id: ListId, statuses: &StatusBits, ttl: Lifetime, now: Timestamp) -> Self {
        let status_list = EncodedStatusList { bits: statuses.width().bits(), lst: statuses.compress() };
        Self {
            iss: issuer.clone(),
            sub: id.uri(issuer),
            iat: now,
            exp: now.saturating_add(ttl).saturating_add(ttl),
            ttl,
            status_list,
        }
    }
}

/// Returns the entity tag of this representation of a list (RFC 9110 §8.8.3), without quotation
/// marks.
#[must_use]
pub fn entity_tag(text: &str) -> String {
    encode_base64url(digest(&SHA256, text.as_bytes()).as_ref().get(..16).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    proptest! {
        #[test]
        fn shard_ends_no_earlier_than_any_of_its_tokens(expires in 1..Timestamp::MAX.unix() - 300) {
            let shard = Shard::for_expiry(at(expires));
            prop_assert!(expires <= shard.end() && shard.end() < expires + SHARD_SPAN_SECONDS);
            prop_assert_eq!(Shard::ending_at(shard.end()), Some(shard));
            prop_assert!(!shard.is_expired(at(expires)));
            let is_late = shard.end() - expires < 60;
            prop_assert_eq!(Shard::following_shard(at(expires)).map(Shard::end), is_late.then_some(shard.end() + SHARD_SPAN_SECONDS));
            prop_assert!(!shard.is_expired(at(shard.end() + 299)) && shard.is_expired(at(shard.end() + 300)));
            prop_assert!(shard.is_plausible(at(expires - 900)) && !shard.is_plausible(at(expires - 10_000)));
        }

        #[test]
        fn status_index_round_trips_through_list_id(expires in 1..4_000_000_000_i64, number in 0..1_u64 << 40) {
            let place = StatusIndex { shard: Shard::for_expiry(at(expires)), number };
            let list = place.list_id().to_string().parse::<ListId>().unwrap();
            prop_assert_eq!(list, place.list_id());
            prop_assert!(place.idx() < LIST_SIZE);
            prop_assert_eq!(list.part * LIST_SIZE + place.idx(), number);
            let other = StatusIndex { number: number + 1, ..place };
            prop_assert!((other.list_id(), other.idx()) != (place.list_id(), place.idx()));
        }

        #[test]
        fn shuffle_block_is_a_seeded_permutation(block in 0..1_u64 << 40, seed: [u8; 32], other: [u8; 32]) {
            let numbers = shuffle_block(block, &seed);
            let all = numbers.iter().copied().collect::<BTreeSet<_>>();
            prop_assert_eq!((numbers.len() as u64, all.len() as u64), (INDEX_BLOCK_SIZE, INDEX_BLOCK_SIZE));
            prop_assert_eq!((all.first().copied(), all.last().copied()), (Some(block * INDEX_BLOCK_SIZE), Some(block * INDEX_BLOCK_SIZE + INDEX_BLOCK_SIZE - 1)));
            prop_assert!(all.iter().map(|n| n / LIST_SIZE).collect::<BTreeSet<_>>().len() == 1, "a block lies in one list");
            prop_assert_eq!(&numbers, &shuffle_block(block, &seed));
            prop_assert!(seed == other || numbers != shuffle_block(block, &other));
        }
    }

    #[test]
    fn shuffle_block_separates_adjacent_numbers() {
        let numbers = shuffle_block(0, &[7; 32]);
        let steps = numbers.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) == 1).count();
        assert!(steps < 20, "{steps}");
    }

    #[test]
    fn malformed_list_id_is_rejected() {
        assert_eq!("1795200300-0".parse::<ListId>().unwrap().to_string(), "1795200300-0");
        for text in [
            "",
            "-",
            "1795200300",
            "1795200300-",
            "-0",
            "1795200301-0",
            "01795200300-0",
            "1795200300-00",
            "+1795200300-0",
            "1795200300-+1",
            "1795200300--1",
            "0-0",
            "-300-0",
            "1795200300-0 ",
            "1795200300-18446744073709551616",
            "99999999999999999900-0",
            "253402301100-0",
            "1795200300-0-0",
            "١٧٩٥٢٠٠٣٠٠-0",
        ] {
            assert_eq!(text.parse::<ListId>(), Err(ListIdError), "{text}");
        }
    }

    #[test]
    fn list_count_follows_allocated_blocks() {
        let shard = Shard::for_expiry(at(1_795_200_000));
        let per_list = LIST_SIZE / INDEX_BLOCK_SIZE;
        for (blocks, lists) in [(0, 0), (1, 1), (per_list, 1), (per_list + 1, 2), (3 * per_list, 3)] {
            assert_eq!(ListId::iter_allocated(shard, blocks).count(), lists, "{blocks}");
            for (part, is_among) in [(lists.saturating_sub(1), lists > 0), (lists, false), (usize::MAX, false)] {
                assert_eq!(ListId { shard, part: part as u64 }.is_allocated(blocks), is_among, "{part} of {blocks}");
            }
        }
    }

    #[test]
    fn status_list_claims_match_specified_form() {
        let issuer = "https://sts.example.com".parse().unwrap();
        let place = StatusIndex { shard: Shard::for_expiry(at(1_795_200_001)), number: LIST_SIZE + 5 };
        let mut statuses = StatusBits::new(Width::Two, 12);
        statuses.set(5, status_of(Standing::Suspended));
        let claims =
            StatusListClaims::new(&issuer, place.list_id(), &statuses, Lifetime::seconds(10), at(1_795_200_000));
        let lst = statuses.compress();
        let want = serde_json::json!({
            "iss": "https://sts.example.com", "sub": "https://sts.example.com/status-lists/1795200300-1",
            "iat": 1_795_200_000, "exp": 1_795_200_020, "ttl": 10, "status_list": {"bits": 2, "lst": lst},
        });
        assert_eq!(serde_json::to_value(&claims).unwrap(), want);
        let claim = serde_json::to_value(place.to_claim(&issuer)).unwrap();
        let uri = "https://sts.example.com/status-lists/1795200300-1";
        assert_eq!(claim, serde_json::json!({"status_list": {"idx": 5, "uri": uri}}));
    }
}
