//! What a dry run showed, short enough to be carried by whoever confirms it: a mark of each task, and nothing stored.

use std::collections::BTreeSet;

use ring::digest;

use crate::domain::{
    decode, encode,
    task::{Act, Task},
};

/// The tasks that were shown for an act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shown(BTreeSet<Mark>);

/// So many bytes of a digest: tasks get random ids, nobody chooses them to be taken for each other.
type Mark = [u8; 8];

impl Shown {
    /// These, for this act.
    #[must_use]
    pub fn of<'a>(act: Act, tasks: impl IntoIterator<Item = &'a Task>) -> Self {
        Self(tasks.into_iter().map(|task| mark(act, task)).collect())
    }

    /// Whether the task was shown for this act, as it is.
    #[must_use]
    pub fn has(&self, act: Act, task: &Task) -> bool {
        self.0.contains(&mark(act, task))
    }

    /// As one word.
    #[must_use]
    pub fn text(&self) -> String {
        encode(&self.0.iter().flatten().copied().collect::<Vec<_>>())
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode(text)?;
        let (marks, []) = bytes.as_chunks() else { return None };
        Some(Self(marks.iter().copied().collect()))
    }
}

/// What ends a task or holds it back is meant for it however it has turned since. What lets it go on is meant for the hold
/// that was shown, and not for a later one.
fn mark(act: Act, task: &Task) -> Mark {
    let text = match act {
        Act::Resume => format!("{} {}", task.id, task.turns),
        Act::Suspend | Act::Revoke | Act::Complete | Act::Fail | Act::Expire => task.id.to_string(),
    };
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{
        authority::Authority,
        id::TaskId,
        revocation::Seq,
        task::{Requester, TaskState},
        time::Timestamp,
    };

    fn task(n: u8, turns: u64) -> Task {
        let requester =
            Requester { issuer: "https://login.example.com".parse().unwrap(), subject: "alice".parse().unwrap() };
        Task {
            id: TaskId::new(uuid::Uuid::from_bytes([n; 16])),
            requester,
            root_agent: "planner".parse().unwrap(),
            purpose: "x".parse().unwrap(),
            authority: Authority::default(),
            state: TaskState::Active,
            created: Timestamp::from_unix(100),
            deadline: Timestamp::from_unix(200),
            rev: Seq::default(),
            grant: None,
            turns,
            turned: None,
        }
    }

    #[test]
    fn what_was_shown_and_nothing_else() {
        let (one, two, turned) = (task(1, 3), task(2, 0), task(1, 4));
        for (act, is_as_it_turned) in [(Act::Revoke, true), (Act::Suspend, true), (Act::Resume, false)] {
            let shown = Shown::parse(&Shown::of(act, [&one]).text()).unwrap();
            assert_eq!(shown, Shown::of(act, [&one]));
            let has = [&one, &two, &turned].map(|task| shown.has(act, task));
            assert_eq!(has, [true, false, is_as_it_turned], "{act:?}");
        }
        assert_ne!(Shown::of(Act::Resume, [&one]), Shown::of(Act::Revoke, [&one]));
    }

    #[test]
    fn a_thousand_fit_into_a_request() {
        let all = (0..=u8::MAX).flat_map(|n| (0..4).map(move |turns| task(n, turns))).collect::<Vec<_>>();
        let text = Shown::of(Act::Resume, all.iter().take(1000)).text();
        assert_eq!(Shown::parse(&text), Some(Shown::of(Act::Resume, all.iter().take(1000))));
        assert!(text.len() < crate::domain::limits::MAX_BODY / 4);
        assert_eq!(Shown::parse(""), Some(Shown::default()));
        for text in ["AAAA", "AAAAAAAAAAA=", "🦀", "AAAAAAAAAAAAAAA", "AAAAAAAAAAB"] {
            assert_eq!(Shown::parse(text), None, "{text}");
        }
    }
}
