//! Digest of the tasks that a dry run selected. It is short enough to be sent back with the
//! confirmation, so nothing needs to be stored.

use std::collections::BTreeSet;

use ring::digest;

use crate::domain::{
    decode_base64url, encode_base64url,
    task::{Task, TaskAction},
};

/// The tasks selected for an action.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SelectionDigest(BTreeSet<TaskDigest>);

/// A truncated digest. Task ids are random, so they cannot be chosen to collide.
type TaskDigest = [u8; 8];

impl SelectionDigest {
    /// Returns the digest of these tasks for this action.
    #[must_use]
    pub fn from_tasks<'a>(action: TaskAction, tasks: impl IntoIterator<Item = &'a Task>) -> Self {
        Self(tasks.into_iter().map(|task| task_digest(action, task)).collect())
    }

    /// Returns whether the task was selected for this action, in its current version where that
    /// matters.
    #[must_use]
    pub fn contains(&self, action: TaskAction, task: &Task) -> bool {
        self.0.contains(&task_digest(action, task))
    }

    /// Encodes the digest as base64url.
    #[must_use]
    pub fn to_text(&self) -> String {
        encode_base64url(&self.0.iter().flatten().copied().collect::<Vec<_>>())
    }

    /// Parses the encoded digest.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = decode_base64url(text)?;
        let (digests, []) = bytes.as_chunks() else { return None };
        Some(Self(digests.iter().copied().collect()))
    }
}

/// The selection for ending or suspending a task applies regardless of later state changes. The
/// selection for resuming applies only to the suspension that was shown.
fn task_digest(action: TaskAction, task: &Task) -> TaskDigest {
    let text = match action {
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

    fn task(n: u8, version: u64) -> Task {
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
            version,
            last_transition: None,
        }
    }

    #[test]
    fn selection_contains_only_selected_tasks_at_their_version() {
        let (one, two, changed) = (task(1, 3), task(2, 0), task(1, 4));
        for (action, ignores_version) in
            [(TaskAction::Revoke, true), (TaskAction::Suspend, true), (TaskAction::Resume, false)]
        {
            let selection = SelectionDigest::parse(&SelectionDigest::from_tasks(action, [&one]).to_text()).unwrap();
            assert_eq!(selection, SelectionDigest::from_tasks(action, [&one]));
            let contained = [&one, &two, &changed].map(|task| selection.contains(action, task));
            assert_eq!(contained, [true, false, ignores_version], "{action:?}");
        }
        assert_ne!(
            SelectionDigest::from_tasks(TaskAction::Resume, [&one]),
            SelectionDigest::from_tasks(TaskAction::Revoke, [&one])
        );
    }

    #[test]
    fn selection_of_a_thousand_tasks_fits_into_a_request() {
        let all = (0..=u8::MAX).flat_map(|n| (0..4).map(move |version| task(n, version))).collect::<Vec<_>>();
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
