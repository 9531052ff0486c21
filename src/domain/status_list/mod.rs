//! Status lists (draft-ietf-oauth-status-list): what has become of tokens, two bits each, for anybody who checks tokens
//! without asking about each of them.
//!
//! Tokens that end at about the same time are a shard, and so are gone together. A token has a number in its shard; a list
//! is a stretch of these numbers, always whole, so that a list that was read before a token was issued has a place for it.

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

/// The `typ` of a status list (§5.1).
pub const TYP_STATUS_LIST: &str = "statuslist+jwt";
/// How many numbers a list has: 64 KiB, before it is compressed.
pub const LIST_SIZE: u64 = 1 << 18;
/// How many numbers a replica takes at a time.
pub const INDEX_BLOCK_SIZE: u64 = 1024;
/// Within how many seconds the tokens of a shard end.
const SHARD_SPAN_SECONDS: i64 = 300;
/// For how long a list is there after its last token ended, for those whose clocks are behind.
pub const LIST_EXPIRY_GRACE: Lifetime = Lifetime::minutes(5);

/// For how long a shard is remembered after its last token ended: longer than clocks differ, so that it never begins again.
pub const SHARD_RETENTION: Lifetime = Lifetime::hours(24);

/// `[status_list]`: whether tokens have a place in a list, and how old a list may get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatusListSettings {
    /// Whether tokens that are issued have a place in a list.
    pub enabled: bool,
    /// After how many seconds whoever reads a list should read it again; it ends after twice as long.
    pub ttl: Lifetime,
}

impl Default for StatusListSettings {
    fn default() -> Self {
        Self { enabled: true, ttl: Lifetime::seconds(10) }
    }
}

/// The tokens that end within the same five minutes, by the end of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(i64);

impl Shard {
    /// The shard of a token that ends then.
    #[must_use]
    pub const fn for_expiry(expires: Timestamp) -> Self {
        Self((expires.unix() + SHARD_SPAN_SECONDS - 1) / SHARD_SPAN_SECONDS * SHARD_SPAN_SECONDS)
    }

    /// The shard whose last token ends then, if there is one.
    #[must_use]
    pub fn ending_at(at: i64) -> Option<Self> {
        let is_one = at > 0 && at <= Timestamp::MAX.unix() && at % SHARD_SPAN_SECONDS == 0;
        is_one.then_some(Self(at))
    }

    /// When its last token ends (seconds since 1970).
    #[must_use]
    pub const fn end(self) -> i64 {
        self.0
    }

    /// The shard of tokens that end a minute after this one, where that is another one.
    #[must_use]
    pub fn following_shard(expires: Timestamp) -> Option<Self> {
        let next = Self::for_expiry(expires.saturating_add(Lifetime::minutes(1)));
        (next != Self::for_expiry(expires)).then_some(next)
    }

    /// Whether nobody asks for it any more.
    #[must_use]
    pub fn is_expired(self, now: Timestamp) -> bool {
        Timestamp::from_unix(self.0).saturating_add(LIST_EXPIRY_GRACE).has_passed(now)
    }

    /// Whether a token that ends so late can have been issued by anybody whose clock is halfway right.
    #[must_use]
    pub fn is_plausible(self, now: Timestamp) -> bool {
        let latest = now.saturating_add(TOKEN_LIFETIME_CAP).saturating_add(MAX_CLOCK_SKEW);
        self.0 <= Self::for_expiry(latest).0
    }
}

/// The place of a token: nobody else's, whichever replica issued it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StatusIndex {
    /// Its shard.
    pub shard: Shard,
    /// Its number there.
    pub number: u64,
}

impl StatusIndex {
    /// The list that it stands in.
    #[must_use]
    pub fn list_id(self) -> ListId {
        ListId { shard: self.shard, part: self.number / LIST_SIZE }
    }

    /// Its place in the list.
    #[must_use]
    pub fn idx(self) -> u64 {
        self.number % LIST_SIZE
    }

    /// The claim that says so, where lists are found under this issuer.
    #[must_use]
    pub fn to_claim(self, issuer: &IssuerUrl) -> StatusClaim {
        StatusClaim { status_list: StatusReference { idx: self.idx(), uri: self.list_id().uri(issuer) } }
    }
}

/// The name of a list: the end of its shard, and which part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListId {
    /// Whose tokens.
    pub shard: Shard,
    /// Which stretch of their numbers.
    pub part: u64,
}

impl ListId {
    /// Where it is read.
    #[must_use]
    pub fn uri(self, issuer: &IssuerUrl) -> String {
        issuer.join(&format!("/status-lists/{self}"))
    }

    /// Whether it is one of a shard of which so many blocks were taken.
    #[must_use]
    pub fn is_allocated(self, blocks: u64) -> bool {
        self.part.checked_mul(LIST_SIZE).is_some_and(|first| first < blocks.saturating_mul(INDEX_BLOCK_SIZE))
    }

    /// The lists of a shard of which so many blocks were taken.
    pub fn iter_allocated(shard: Shard, blocks: u64) -> impl Iterator<Item = Self> {
        (0..blocks.saturating_mul(INDEX_BLOCK_SIZE).div_ceil(LIST_SIZE)).map(move |part| Self { shard, part })
    }
}

impl fmt::Display for ListId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.shard.0, self.part)
    }
}

/// It is the name of no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the name of a status list")]
pub struct ListIdError;

impl FromStr for ListId {
    type Err = ListIdError;

    /// A list has one name: nothing but what [`Display`](fmt::Display) writes is taken.
    fn from_str(text: &str) -> Result<Self, ListIdError> {
        let (end, part) = text.split_once('-').ok_or(ListIdError)?;
        let shard = end.parse().ok().and_then(Shard::ending_at).ok_or(ListIdError)?;
        let id = Self { shard, part: part.parse().map_err(|_| ListIdError)? };
        if id.to_string() == text { Ok(id) } else { Err(ListIdError) }
    }
}

/// The numbers of a block, in an order that nobody knows who does not know the seed: two tokens of a block tell nothing of
/// which was issued first, and how many between them.
#[must_use]
pub fn shuffle_block(block: u64, seed: &[u8; 32]) -> Vec<u64> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, seed);
    let first = block.saturating_mul(INDEX_BLOCK_SIZE);
    let tag = |n: u64| hmac::sign(&key, &n.to_be_bytes()).as_ref().to_vec();
    let mut numbers = (first..first.saturating_add(INDEX_BLOCK_SIZE)).map(|n| (tag(n), n)).collect::<Vec<_>>();
    numbers.sort_unstable();
    numbers.into_iter().map(|(_, n)| n).collect()
}

/// The status of a token (§7.1): VALID, INVALID, SUSPENDED.
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
    /// Where its status is found.
    pub status_list: StatusReference,
}

/// The list of a token, and its place there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StatusReference {
    /// The place.
    pub idx: u64,
    /// The list.
    pub uri: String,
}

/// The claims of a list (§5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StatusListClaims {
    /// Us.
    pub iss: IssuerUrl,
    /// Where the list is read: what a token's `uri` says.
    pub sub: String,
    /// When this was so.
    pub iat: Timestamp,
    /// From when on nobody goes by it.
    pub exp: Timestamp,
    /// After how many seconds it should be read again.
    pub ttl: Lifetime,
    /// What it says.
    pub status_list: EncodedStatusList,
}

/// Statuses as they are sent (§4.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EncodedStatusList {
    /// How many bits a status has.
    pub bits: u8,
    /// The statuses.
    pub lst: String,
}

impl StatusListClaims {
    /// What a list says of its tokens at this moment.
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

/// A short name for this very text of a list (RFC 9110 §8.8.3, without the quotation marks).
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
