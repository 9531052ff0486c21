//! Anchors of the revocation log: what a replica that starts must find in the part of the log that
//! it does not read completely.
//!
//! A replica that starts skips entries past their retention, so it can't see whether one is
//! missing. An anchor counts the entries up to a position and digests their tags, separately for
//! each hour in which their retention ends. The entries after that position are all read.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use super::{LogEntry, LogPosition};
use crate::domain::{encode_base64url, time::Timestamp};

/// An entry with its tag and the tag of the entry before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkedEntry {
    /// The entry.
    pub entry: LogEntry,
    /// The tag of the entry before this one.
    pub previous: String,
    /// The tag.
    pub tag: String,
}

/// The entries whose retention ends within the same hour.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct HourDigest {
    count: u64,
    /// SHA-256 over the digest before the last entry and its tag, base64url.
    digest: String,
}

/// An anchor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogAnchor {
    /// The position of the last entry that is counted.
    pub position: LogPosition,
    /// Its tag; empty at the start of the log.
    pub tag: String,
    /// The hours, counted from 1970.
    hours: BTreeMap<i64, HourDigest>,
    /// Hours before this one are not counted any more.
    first_hour: i64,
}

impl LogAnchor {
    /// Returns a stored anchor. `hours` is the text of [`hours_text`](Self::hours_text).
    #[must_use]
    pub fn parse(position: LogPosition, tag: String, hours: &str) -> Option<Self> {
        let (first_hour, hours) = serde_json::from_str(hours).ok()?;
        Some(Self { position, tag, hours, first_hour })
    }

    /// Returns the hours as JSON, to be stored.
    #[must_use]
    pub fn hours_text(&self) -> String {
        // Maps with numbers as keys have a JSON form, so this does not fail.
        serde_json::to_string(&(self.first_hour, &self.hours)).unwrap_or_default()
    }

    /// Counts the next entry.
    pub fn advance(&mut self, next: &LinkedEntry) {
        let hour = hour_of(next.entry.entry.forget_after);
        if hour >= self.first_hour {
            let counted = self.hours.entry(hour).or_default();
            counted.count = counted.count.saturating_add(1);
            let text = format!("{}{}", counted.digest, next.tag);
            counted.digest = encode_base64url(digest(&SHA256, text.as_bytes()).as_ref());
        }
        self.position = next.entry.seq;
        next.tag.clone_into(&mut self.tag);
    }

    /// Stops counting the hours before a time.
    pub fn forget_before(&mut self, time: Timestamp) {
        self.first_hour = self.first_hour.max(hour_of(time));
        self.hours.retain(|hour, _| *hour >= self.first_hour);
    }

    /// Returns the first hour whose entries are not the ones that were found, of those that are
    /// retained at a time: one was removed, or one was added.
    #[must_use]
    pub fn find_difference(&self, found: &Self, alive_at: Timestamp) -> Option<Timestamp> {
        let first = self.first_hour.max(hour_of(Timestamp::from_unix(alive_at.unix().saturating_add(1))));
        let hours = self.hours.keys().chain(found.hours.keys()).copied().filter(|hour| *hour >= first);
        let different = hours.filter(|hour| self.hours.get(hour) != found.hours.get(hour)).min()?;
        Some(Timestamp::from_unix(different.saturating_mul(SECONDS_PER_HOUR)))
    }
}

const SECONDS_PER_HOUR: i64 = 3600;

fn hour_of(time: Timestamp) -> i64 {
    time.unix() / SECONDS_PER_HOUR
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::revocation::{LogAction, NewEntry, Target};

    fn linked(seq: u64, forget_after: i64) -> LinkedEntry {
        let (reason, by, at) = (String::new(), String::new(), Timestamp::EPOCH);
        let forget_after = Timestamp::from_unix(forget_after);
        let entry = NewEntry { verb: LogAction::Revoke, target: Target::Registry, reason, by, at, forget_after };
        let entry = LogEntry { seq: LogPosition::new(seq), entry };
        LinkedEntry { entry, previous: format!("tag {}", seq - 1), tag: format!("tag {seq}") }
    }

    fn anchor<'a>(entries: impl IntoIterator<Item = &'a LinkedEntry>) -> LogAnchor {
        let mut anchor = LogAnchor::default();
        for entry in entries {
            anchor.advance(entry);
        }
        anchor
    }

    #[test]
    fn removed_and_replaced_entries_differ_in_their_hour() {
        let log = [linked(1, 10), linked(2, 3_700), linked(3, 7_300), linked(4, 7_400), linked(5, 20)];
        let whole = anchor(&log);
        assert_eq!((whole.position.number(), &*whole.tag), (5, "tag 5"));
        assert_eq!(whole.find_difference(&whole.clone(), Timestamp::EPOCH), None);
        // A reader skips what is past its retention at the end of an hour.
        for (alive_at, skipped) in [(3_599, 2), (7_199, 3)] {
            let retained = log.iter().filter(|entry| entry.entry.entry.forget_after.unix() > alive_at);
            assert_eq!(whole.find_difference(&anchor(retained), Timestamp::from_unix(alive_at)), None, "{skipped}");
        }
        for removed in 0..log.len() {
            let hour = log[removed].entry.entry.forget_after.unix() / 3_600 * 3_600;
            let rest = log.iter().enumerate().filter(|(n, _)| *n != removed).map(|(_, entry)| entry);
            let difference = whole.find_difference(&anchor(rest), Timestamp::EPOCH);
            assert_eq!(difference, Some(Timestamp::from_unix(hour)), "{removed}");
        }
        let mut other = log.clone();
        other[3].tag = "another".into();
        assert_eq!(whole.find_difference(&anchor(&other), Timestamp::EPOCH), Some(Timestamp::from_unix(7_200)));
        let more = anchor(log.iter().chain([&linked(6, 100_000)]));
        assert_eq!(whole.find_difference(&more, Timestamp::EPOCH), Some(Timestamp::from_unix(97_200)));
    }

    #[test]
    fn forgotten_hours_are_not_compared() {
        let log = [linked(1, 10), linked(2, 3_700), linked(3, 7_300)];
        let mut shorter = anchor(&log);
        shorter.forget_before(Timestamp::from_unix(7_200));
        assert_eq!(shorter.find_difference(&anchor(&log), Timestamp::EPOCH), None);
        shorter.advance(&linked(4, 11));
        assert_eq!(shorter.find_difference(&anchor(&log), Timestamp::EPOCH), None, "an entry of a forgotten hour");
        assert_eq!(shorter.find_difference(&anchor(&log[..2]), Timestamp::EPOCH), Some(Timestamp::from_unix(7_200)));
        let stored = LogAnchor::parse(shorter.position, shorter.tag.clone(), &shorter.hours_text());
        assert_eq!(stored, Some(shorter));
        assert_eq!(LogAnchor::parse(LogPosition::default(), String::new(), "[]"), None);
    }
}
