//! What a call of a tool did, as the resource that carried it out reports it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    authority::Authority,
    id::{ArgumentsDigest, CallId, DataClass, TokenId, ToolName},
    uri::ResourceUri,
};

/// How many classes of data one report may name.
pub const MAX_DATA_CLASSES: usize = 16;
/// The most that a report can count: what every reader of JSON reads without loss.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool did what it was asked.
    Succeeded,
    /// The tool tried and did not.
    Failed,
    /// The resource did not let the call through.
    Refused,
}

impl CallOutcome {
    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// Data that a call touched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataAccess {
    /// Which class of data.
    pub class: DataClass,
    /// How many records, files, rows.
    pub count: u64,
}

/// What a resource reports about one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallReport {
    /// The resource's name for the call, unique for the token.
    pub id: CallId,
    /// The token that the call was made with.
    pub jti: TokenId,
    /// The tool.
    pub tool: ToolName,
    /// The digest of the arguments; never the arguments.
    pub arguments: ArgumentsDigest,
    /// How it ended.
    pub outcome: CallOutcome,
    /// What it touched.
    #[serde(default)]
    pub data: Vec<DataAccess>,
}

/// Why a report is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallReportError {
    /// Too many classes.
    #[error("at most 16 classes of data")]
    TooManyClasses,
    /// A class stands twice.
    #[error("a class of data stands twice")]
    DuplicateClass,
    /// More than can be counted.
    #[error("a count is over 9007199254740991")]
    CountTooLarge,
}

impl CallReport {
    /// Whether the report holds together.
    pub fn validate(&self) -> Result<(), CallReportError> {
        if self.data.len() > MAX_DATA_CLASSES {
            return Err(CallReportError::TooManyClasses);
        }
        let is_first = |(n, touched): (usize, &DataAccess)| !self.data.iter().take(n).any(|t| t.class == touched.class);
        if !self.data.iter().enumerate().all(is_first) {
            return Err(CallReportError::DuplicateClass);
        }
        if self.data.iter().any(|touched| touched.count > MAX_COUNT) {
            return Err(CallReportError::CountTooLarge);
        }
        Ok(())
    }

    /// Whether the token named the tool at this resource. Its constraints can't be looked at: the arguments stay where
    /// they are. A call that it did not name is recorded too; that somebody let it through is what an auditor looks for.
    #[must_use]
    pub fn is_named_by(&self, authority: &Authority, resource: &ResourceUri) -> bool {
        authority.iter().any(|permission| permission.resource == *resource && permission.tool() == Some(&self.tool))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(data: &[(&str, u64)]) -> CallReport {
        CallReport {
            id: "c-1".parse().unwrap(),
            jti: TokenId::new(uuid::Uuid::from_u128(1)),
            tool: "read_file".parse().unwrap(),
            arguments: format!("sha-256:{}", "A".repeat(43)).try_into().unwrap(),
            outcome: CallOutcome::Succeeded,
            data: data
                .iter()
                .map(|(class, count)| DataAccess { class: class.parse().unwrap(), count: *count })
                .collect(),
        }
    }

    #[test]
    fn report_over_a_limit_or_with_duplicate_class_is_rejected() {
        assert_eq!(report(&[]).validate(), Ok(()));
        assert_eq!(report(&[("personal", MAX_COUNT), ("public", 0)]).validate(), Ok(()));
        assert_eq!(report(&[("personal", MAX_COUNT + 1)]).validate(), Err(CallReportError::CountTooLarge));
        assert_eq!(report(&[("a", 1), ("b", 1), ("a", 1)]).validate(), Err(CallReportError::DuplicateClass));
        let names = (0..17).map(|n| format!("c{n}")).collect::<Vec<_>>();
        let many = names.iter().map(|name| (name.as_str(), 1)).collect::<Vec<_>>();
        assert_eq!(report(&many[..16]).validate(), Ok(()));
        assert_eq!(report(&many).validate(), Err(CallReportError::TooManyClasses));
    }
}
