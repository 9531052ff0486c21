//! What a dry run showed, short enough to be carried by whoever confirms it: a mark of each task, and nothing stored.

use std::collections::BTreeSet;

use ring::digest;

use crate::domain::{
    decode_base64url, encode_base64url,
    task::{Task, TaskAction},
};

/// The tasks that were shown for an act.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectionDigest(BTreeSet<TaskDigest>);

/// So many bytes of a digest: tasks get random ids, nobody chooses them to be taken for each other.
type TaskDigest = [u8; 8];

impl SelectionDigest {
    /// These, for this act.
    #[must_use]
    pub fn from_tasks<'a>(act: TaskAction, tasks: impl IntoIterator<Item = &'a Task>) -> Self {
        Self(tasks.into_iter().map(|task| task_digest(act, task)).collect())
    }

    /// Whether the task was shown for this act, as it is.
    #[must_use]
    pub fn contains(&self, act: TaskAction, task: &Task) -> bool {
        self.0.contains(&task_digest(act, task))
    }

    /// As one word.
    #[must_use]
    pub fn to_text(&self) -> String {
        encode_base64url(&self.0.iter().flatten().copied().collect::<Vec<_>>())
    }

    /// Reads it.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode_base64url(text)?;
        let (marks, []) = bytes.as_chunks() else { return None };
        Some(Self(marks.iter().copied().collect()))
    }
}

/// What ends a task or holds it back is meant for it however it has turned since. What lets it go on is meant for the hold
/// that was shown, and not for a later one.
fn task_digest(act: TaskAction, task: &Task) -> TaskDigest {
    let text = match act {
        TaskAction::Resume => format!("{} {}", task.id, task.version),
        TaskAction::Suspend | TaskAction::Revoke | TaskAction::Complete | TaskAction::Fail | TaskAction::Expire => {
            task.id.to_string()
        }
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
        revocation::LogPosition,
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
            created_at: Timestamp::from_unix(100),
            deadline: Timestamp::from_unix(200),
            rev: LogPosition::default(),
            grant: None,
            version: turns,
            last_transition: None,
        }
    }

    #[test]
    fn selection_contains_only_selected_tasks_at_their_version() {
        let (one, two, turned) = (task(1, 3), task(2, 0), task(1, 4));
        for (act, is_as_it_turned) in
            [(TaskAction::Revoke, true), (TaskAction::Suspend, true), (TaskAction::Resume, false)]
        {
            let shown = SelectionDigest::parse(&SelectionDigest::from_tasks(act, [&one]).to_text()).unwrap();
            assert_eq!(shown, SelectionDigest::from_tasks(act, [&one]));
            let has = [&one, &two, &turned].map(|task| shown.contains(act, task));
            assert_eq!(has, [true, false, is_as_it_turned], "{act:?}");
        }
        assert_ne!(
            SelectionDigest::from_tasks(TaskAction::Resume, [&one]),
            SelectionDigest::from_tasks(TaskAction::Revoke, [&one])
        );
    }

    #[test]
    fn selection_of_a_thousand_tasks_fits_into_a_request() {
        let all = (0..=u8::MAX).flat_map(|n| (0..4).map(move |turns| task(n, turns))).collect::<Vec<_>>();
        let text = SelectionDigest::from_tasks(TaskAction::Resume, all.iter().take(1000)).to_text();
        assert_eq!(
            SelectionDigest::parse(&text),
            Some(SelectionDigest::from_tasks(TaskAction::Resume, all.iter().take(1000)))
        );
        assert!(text.len() < crate::domain::settings::MAX_BODY_BYTES / 4);
        assert_eq!(SelectionDigest::parse(""), Some(SelectionDigest::default()));
        for text in ["AAAA", "AAAAAAAAAAA=", "🦀", "AAAAAAAAAAAAAAA", "AAAAAAAAAAB"] {
            assert_eq!(SelectionDigest::parse(text), None, "{text}");
        }
    }
}
