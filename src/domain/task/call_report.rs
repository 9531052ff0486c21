//! Call reports: what a tool call did, as reported by the resource that executed it.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::domain::{
    authority::Authority,
    id::{ArgumentsDigest, CallId, DataClass, TokenId, ToolName},
    uri::ResourceUri,
};

/// Maximum number of data classes in a report.
pub const MAX_DATA_CLASSES: usize = 16;
/// Maximum count in a report: the largest integer that every JSON reader preserves.
pub const MAX_COUNT: u64 = (1 << 53) - 1;

/// The outcome of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CallOutcome {
    /// The tool succeeded.
    Succeeded,
    /// The tool failed.
    Failed,
    /// The resource refused the call.
    Refused,
}

impl CallOutcome {
    /// Returns the wire name.
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
    /// The class of data.
    pub class: DataClass,
    /// The number of records, files or rows.
    pub count: u64,
}

/// A resource's report of one call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallReport {
    /// The resource's id for the call, unique for the token.
    pub id: CallId,
    /// The token with which the call was made.
    pub jti: TokenId,
    /// The tool.
    pub tool: ToolName,
    /// The digest of the arguments, never the arguments.
    pub arguments: ArgumentsDigest,
    /// The outcome.
    pub outcome: CallOutcome,
    /// The data that the call accessed.
    #[serde(default)]
    pub data: Vec<DataAccess>,
}

/// Why a report is invalid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallReportError {
    /// The report has too many data classes.
    #[error("too many data classes; name at most 16")]
    TooManyClasses,
    /// A data class appears more than once.
    #[error("duplicate data class; name each class once")]
    DuplicateClass,
    /// A count exceeds the limit.
    #[error("a count exceeds 9007199254740991")]
    CountTooLarge,
}

impl CallReport {
    /// Checks the limits of the report.
    pub fn validate(&self) -> Result<(), CallReportError> {
        if self.data.len() > MAX_DATA_CLASSES {
            return Err(CallReportError::TooManyClasses);
        }
        let is_first =
            |(n, access): (usize, &DataAccess)| !self.data.iter().take(n).any(|earlier| earlier.class == access.class);
        if !self.data.iter().enumerate().all(is_first) {
            return Err(CallReportError::DuplicateClass);
        }
        if self.data.iter().any(|access| access.count > MAX_COUNT) {
            return Err(CallReportError::CountTooLarge);
        }
        Ok(())
    }

    /// Returns whether the token names the tool at this resource. Its constraints can't be checked,
    /// because the resource does not send the arguments. A call that the token does not name is
    /// recorded too: an auditor needs to see that it was permitted.
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
