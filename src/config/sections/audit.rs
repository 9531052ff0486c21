//! `[audit]`: which introspections and evaluations are recorded.

use crate::{
    config::node::Section,
    domain::audit::{EvaluationAuditMode, IntrospectionAuditMode},
};

/// `[audit]`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Audit {
    /// Which introspections are recorded.
    pub introspections: IntrospectionAuditMode,
    /// Which permitted calls are recorded.
    pub evaluations: EvaluationAuditMode,
}

pub(in crate::config) fn read_audit(root: &mut Section<'_>) -> Audit {
    let mut section = root.section("audit");
    Audit {
        introspections: section.optional("introspections", |node| node.parse_keyword()).unwrap_or_default(),
        evaluations: section.optional("evaluations", |node| node.parse_keyword()).unwrap_or_default(),
    }
}
