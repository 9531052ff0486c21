//! The declared part of configuration files: which file is in force, and which files may follow it.
//!
//! A file declares objects and secrets, which are applied to the store for all replicas. A file
//! that was in force before and has been replaced would undo what came after it, and removed
//! objects end tasks for good. Such a file is refused unless an operator asks for it.

use ring::digest::{SHA256, digest};
use serde_json::json;
use thiserror::Error;

use crate::domain::{
    encode_base64url,
    encoding::jcs,
    id::ClientId,
    registry::RegistryObject,
    secret::{Pepper, Secret},
    time::Timestamp,
};

/// The identity of what a file declares: equal declarations have equal digests, whatever the
/// layout of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileVersion {
    /// The digest of the declared objects and of the tags of the declared secrets.
    pub digest: String,
    /// The `generation` of the file, if it has one.
    pub generation: Option<u64>,
}

impl FileVersion {
    /// Computes the version of a declaration.
    #[must_use]
    pub fn of_declaration(
        objects: &[RegistryObject],
        secrets: &[(ClientId, Secret)],
        generation: Option<u64>,
        pepper: &Pepper,
    ) -> Self {
        let mut objects = objects.iter().collect::<Vec<_>>();
        objects.sort_by_key(|object| (object.kind(), object.id().to_owned()));
        let mut secrets = secrets
            .iter()
            .map(|(client, secret)| (client.as_str(), encode_base64url(pepper.tag(client.as_str(), secret).as_bytes())))
            .collect::<Vec<_>>();
        secrets.sort();
        let text = jcs::to_string(&json!({"objects": objects, "secrets": secrets})).unwrap_or_default();
        Self { digest: encode_base64url(digest(&SHA256, text.as_bytes()).as_ref()), generation }
    }

    /// Returns the beginning of the digest, for messages.
    #[must_use]
    pub fn short_digest(&self) -> &str {
        self.digest.get(..12).unwrap_or(&self.digest)
    }
}

/// A file that was applied to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedFile {
    /// The number of the application, from 1 and without gaps: the highest one is in force.
    pub number: u64,
    /// What the file declares.
    pub version: FileVersion,
    /// The time of the application.
    pub at: Timestamp,
    /// The replica or the operator that applied the file.
    pub by: String,
}

/// What the store knows of the configuration of its replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigurationHistory {
    /// The `issuer` of the first start. It never changes.
    pub issuer: Option<String>,
    /// The applied files, in the order of their numbers.
    pub applied: Vec<AppliedFile>,
}

impl ConfigurationHistory {
    /// Returns the file in force.
    #[must_use]
    pub fn in_force(&self) -> Option<&AppliedFile> {
        self.applied.last()
    }

    /// Returns the application that would follow.
    #[must_use]
    pub fn next(&self, version: FileVersion, at: Timestamp, by: String) -> AppliedFile {
        let number = self.in_force().map_or(0, |newest| newest.number).saturating_add(1);
        AppliedFile { number, version, at, by }
    }
}

/// Which files an operator accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileOrder {
    /// Only a file that is newer than the one in force.
    NewerOnly,
    /// Also an older file.
    AcceptOlder,
}

/// How a file relates to the file in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileRelation {
    /// It declares the same, so that its application is not recorded again.
    InForce,
    /// It is newer, or the first one.
    Newer,
    /// It is older, and the operator accepts that.
    AcceptedOlder,
}

/// The reason that a file is not applied.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StaleFileError {
    /// The generation is lower than that of the file in force.
    #[error(
        "the file has `generation = {found}`, and generation {} is in force (applied {} by {})",
        .newest.version.generation.unwrap_or_default(), .newest.at.to_rfc3339(), .newest.by
    )]
    LowerGeneration {
        /// The generation of the file.
        found: u64,
        /// The file in force.
        newest: Box<AppliedFile>,
    },
    /// The file has no generation, and the file in force has one.
    #[error(
        "the file has no `generation`, and generation {} is in force (applied {} by {})",
        .newest.version.generation.unwrap_or_default(), .newest.at.to_rfc3339(), .newest.by
    )]
    MissingGeneration {
        /// The file in force.
        newest: Box<AppliedFile>,
    },
    /// The file was in force before and has been replaced.
    #[error(
        "the file was applied before ({} by {}), and another one since ({} by {})",
        .applied.at.to_rfc3339(), .applied.by, .newest.at.to_rfc3339(), .newest.by
    )]
    AppliedBefore {
        /// The last time at which the file was applied.
        applied: Box<AppliedFile>,
        /// The file in force.
        newest: Box<AppliedFile>,
    },
}

/// Decides whether a file may follow the files that were applied before.
///
/// A generation decides if the file in force has one; otherwise, and between equal generations, a
/// digest that was in force before and has been replaced is older.
pub fn relate_file(
    version: &FileVersion,
    history: &ConfigurationHistory,
    order: FileOrder,
) -> Result<FileRelation, StaleFileError> {
    let Some(newest) = history.in_force() else { return Ok(FileRelation::Newer) };
    if newest.version == *version {
        return Ok(FileRelation::InForce);
    }
    let boxed = || Box::new(newest.clone());
    let stale = match (version.generation, newest.version.generation) {
        (Some(found), Some(applied)) if found < applied => {
            Some(StaleFileError::LowerGeneration { found, newest: boxed() })
        }
        (None, Some(_)) => Some(StaleFileError::MissingGeneration { newest: boxed() }),
        (Some(found), Some(applied)) if found > applied => None,
        // Another generation, or none, for what is in force is not an older declaration.
        _ if newest.version.digest == version.digest => None,
        _ => {
            let applied = history.applied.iter().rev().find(|applied| applied.version.digest == version.digest);
            applied.map(|applied| StaleFileError::AppliedBefore { applied: Box::new(applied.clone()), newest: boxed() })
        }
    };
    match (stale, order) {
        (None, _) => Ok(FileRelation::Newer),
        (Some(_), FileOrder::AcceptOlder) => Ok(FileRelation::AcceptedOlder),
        (Some(error), FileOrder::NewerOnly) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(digest: &str, generation: Option<u64>) -> FileVersion {
        FileVersion { digest: digest.into(), generation }
    }

    fn history(applied: &[(&str, Option<u64>)]) -> ConfigurationHistory {
        let mut history = ConfigurationHistory::default();
        for (digest, generation) in applied {
            let next = history.next(version(digest, *generation), Timestamp::EPOCH, "a replica".into());
            history.applied.push(next);
        }
        history
    }

    #[test]
    fn older_files_are_refused() {
        #[derive(Debug, PartialEq)]
        enum Want {
            InForce,
            Newer,
            LowerGeneration,
            MissingGeneration,
            AppliedBefore,
        }
        use Want::*;
        type Version<'a> = (&'a str, Option<u64>);
        type Case<'a> = (&'a [Version<'a>], Version<'a>, Want);
        let table: [Case<'_>; 17] = [
            (&[], ("a", None), Newer),
            (&[], ("a", Some(0)), Newer),
            (&[("a", None)], ("a", None), InForce),
            (&[("a", None)], ("b", None), Newer),
            (&[("a", None), ("b", None)], ("a", None), AppliedBefore),
            (&[("a", None), ("b", None), ("c", None)], ("a", None), AppliedBefore),
            (&[("a", None), ("b", None), ("a", None)], ("b", None), AppliedBefore),
            (&[("a", None), ("b", None), ("a", None)], ("a", None), InForce),
            (&[("a", None), ("b", None)], ("c", None), Newer),
            (&[("a", None)], ("a", Some(1)), Newer),
            (&[("a", None), ("b", None)], ("a", Some(1)), AppliedBefore),
            (&[("a", Some(1))], ("b", None), MissingGeneration),
            (&[("a", Some(1))], ("a", None), MissingGeneration),
            (&[("a", Some(2))], ("b", Some(1)), LowerGeneration),
            (&[("a", Some(1)), ("b", Some(2))], ("a", Some(3)), Newer),
            (&[("a", Some(1)), ("b", Some(1))], ("a", Some(1)), AppliedBefore),
            (&[("a", Some(1))], ("b", Some(1)), Newer),
        ];
        for (applied, (digest, generation), want) in table {
            let (history, file) = (history(applied), version(digest, generation));
            let found = match relate_file(&file, &history, FileOrder::NewerOnly) {
                Ok(FileRelation::InForce) => InForce,
                Ok(FileRelation::Newer) => Newer,
                Ok(FileRelation::AcceptedOlder) => panic!("accepted unasked: {applied:?}"),
                Err(StaleFileError::LowerGeneration { .. }) => LowerGeneration,
                Err(StaleFileError::MissingGeneration { .. }) => MissingGeneration,
                Err(StaleFileError::AppliedBefore { .. }) => AppliedBefore,
            };
            assert_eq!(found, want, "{applied:?} {digest} {generation:?}");
            let accepted = relate_file(&file, &history, FileOrder::AcceptOlder).unwrap();
            let is_older = matches!(want, LowerGeneration | MissingGeneration | AppliedBefore);
            assert_eq!(accepted == FileRelation::AcceptedOlder, is_older, "{applied:?} {digest} {generation:?}");
        }
    }

    #[test]
    fn applications_are_numbered_without_gaps() {
        let history = history(&[("a", None), ("b", None)]);
        assert_eq!(history.applied.iter().map(|applied| applied.number).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(history.in_force().map(|applied| applied.version.digest.as_str()), Some("b"));
    }
}
