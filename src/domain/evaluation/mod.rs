//! Evaluation: may this call be made with this token, now? The decision of the AuthZEN endpoint
//! (Authorization API 1.0 §5).
//!
//! [`decide`] is the part of the decision that the token and the registry determine. It never
//! permits what an introspection of the token, followed by [`Authority::allows`] for the call,
//! would refuse.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use crate::domain::{
    authority::{Arg, Authority, CALL_ACTION, CallRefusal, ListAction, Permission},
    id::ToolName,
    registry::{
        Reduction, Registry,
        client::{Effect, Resource},
    },
    token::TaskTokenClaims,
};

/// Maximum number of evaluations in a batch.
pub const MAX_EVALUATIONS: usize = 64;

/// The type of a tool in a question.
pub const TOOL_TYPE: &str = "tool";
/// The type of an MCP server in a question. Its id is the audience of tokens for it.
pub const SERVER_TYPE: &str = "mcp_server";

/// A question: may the subject do this at the resource that evaluates? The names of the members
/// are those of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// `subject.id`: the requester.
    pub subject: String,
    /// `context.agent`: the agent that makes the call, if the request names it.
    pub agent: Option<String>,
    /// `action.name`: a method of MCP.
    pub action: String,
    /// `resource.type`.
    pub resource_type: String,
    /// `resource.id`.
    pub resource_id: String,
    /// `resource.properties.arguments`: the arguments of the call. The questions of a batch may
    /// share them.
    pub arguments: Arc<Arguments>,
}

/// The arguments of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Arguments {
    members: BTreeMap<String, Arg>,
    /// The place of the first number that has no canonical form.
    inexact_number: Option<String>,
}

impl From<BTreeMap<String, Arg>> for Arguments {
    fn from(members: BTreeMap<String, Arg>) -> Self {
        Self { inexact_number: Arg::inexact_number(&members), members }
    }
}

/// What the answer depends on.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationInput<'a> {
    /// The question.
    pub question: &'a Question,
    /// The claims that are valid now, as introspection returns them. `None`: the token is not
    /// active for the resource.
    pub claims: Option<&'a TaskTokenClaims>,
    /// Whether the token was issued for a call, even if its tool is unavailable now.
    pub names_tools: bool,
    /// The resource that evaluates.
    pub resource: &'a Resource,
    /// The registry that it belongs to.
    pub registry: &'a Registry,
}

/// What was permitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Permitted {
    /// A call of this tool.
    Call(ToolName),
    /// Listing tools. The list shows these tools, in the order of the catalogue; `None` means every
    /// tool, for the token with which this server reads the list itself.
    ListTools(Option<Vec<ToolName>>),
    /// Listing what MCP calls resources.
    ListResources,
}

/// Why the decision is no, in the order of priority: where several reasons hold, the first one is
/// given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DenyReason {
    /// The token is not active for the resource.
    Inactive,
    /// The token does not permit the action, or belongs to another subject or agent.
    NotPermitted,
    /// The token permits the tool, but not with these arguments.
    Constraint,
}

impl DenyReason {
    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inactive => "inactive",
            Self::NotPermitted => "not_permitted",
            Self::Constraint => "constraint",
        }
    }
}

/// A denied question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// The reason.
    pub reason: DenyReason,
    /// The member of the request that the reason concerns, such as `resource.id` or
    /// `arguments.path`.
    pub at: Option<String>,
    /// The reason in words. Never contains a value that was sent.
    pub message: &'static str,
}

impl Denied {
    fn inactive() -> Self {
        let message = "the token is not active for this resource: it is expired, revoked, suspended, for another \
                       resource, or not a token of this server";
        Self { reason: DenyReason::Inactive, at: None, message }
    }

    fn not_permitted(at: &'static str, message: &'static str) -> Self {
        Self { reason: DenyReason::NotPermitted, at: Some(at.to_owned()), message }
    }

    fn constraint(at: String, message: &'static str) -> Self {
        Self { reason: DenyReason::Constraint, at: Some(at), message }
    }
}

/// Decides a question.
///
/// # Errors
///
/// Returns the reason if the decision is no.
pub fn decide(input: &EvaluationInput<'_>) -> Result<Permitted, Denied> {
    let EvaluationInput { question, claims, resource, .. } = input;
    let claims = claims.ok_or_else(Denied::inactive)?;
    if question.subject != claims.sub.as_str() {
        return Err(Denied::not_permitted("subject.id", "the subject is not that of the token"));
    }
    if question.agent.as_ref().is_some_and(|agent| agent != claims.client_id.as_str()) {
        return Err(Denied::not_permitted("context.agent", "the agent is not the one that the token was issued to"));
    }
    if question.action == CALL_ACTION {
        return decide_call(question, &claims.authorization_details, resource);
    }
    let Some(list) = ListAction::parse(&question.action) else {
        let message = "a token permits `tools/call`, `tools/list` and `resources/list` only";
        return Err(Denied::not_permitted("action.name", message));
    };
    check_type(question, SERVER_TYPE, "must be `mcp_server` for a list")?;
    if question.resource_id != resource.uri.as_str() {
        return Err(Denied::not_permitted("resource.id", "must be the URI of the resource that evaluates"));
    }
    if !claims.authorization_details.allows_listing(&resource.uri, list) {
        return Err(Denied::not_permitted("action.name", "the token does not permit this list"));
    }
    Ok(match list {
        ListAction::Tools => Permitted::ListTools(visible_tools(input, claims)),
        ListAction::Resources => Permitted::ListResources,
    })
}

fn decide_call(question: &Question, authority: &Authority, resource: &Resource) -> Result<Permitted, Denied> {
    check_type(question, TOOL_TYPE, "must be `tool` for a call")?;
    let unnamed = || Denied::not_permitted("resource.id", "the token does not permit this tool");
    let tool = question.resource_id.parse::<ToolName>().map_err(|_| unnamed())?;
    authority.check_call(&resource.uri, &tool, &question.arguments.members).map_err(|refusal| match refusal {
        CallRefusal::NotNamed => unnamed(),
        CallRefusal::Arguments { at } => {
            Denied::constraint(at, "the token does not permit the tool with this argument")
        }
    })?;
    if let Some(at) = &question.arguments.inexact_number {
        let message = "a number that a double can't represent exactly (RFC 8785); use fewer digits";
        return Err(Denied::constraint(at.clone(), message));
    }
    Ok(Permitted::Call(tool))
}

fn check_type(question: &Question, expected: &str, message: &'static str) -> Result<(), Denied> {
    if question.resource_type == expected {
        return Ok(());
    }
    Err(Denied::not_permitted("resource.type", message))
}

/// Returns the tools that a list shows: those that the token may call. A token that was issued for
/// listing alone sees every tool that a token could be issued for.
fn visible_tools(input: &EvaluationInput<'_>, claims: &TaskTokenClaims) -> Option<Vec<ToolName>> {
    // This server finds new tools by its own list.
    if claims.is_for_catalogue() {
        return None;
    }
    let uri = &input.resource.uri;
    let names_tool =
        |permission: &Permission, tool: &ToolName| permission.resource == *uri && permission.tool() == Some(tool);
    let authority = &claims.authorization_details;
    let is_visible = |tool: &ToolName| {
        if input.names_tools {
            return authority.iter().any(|permission| names_tool(permission, tool));
        }
        let permission = Permission::unconstrained(uri.clone(), tool.clone());
        let available = input.registry.remaining_available(&std::iter::once(permission).collect());
        available == Reduction::Unchanged
    };
    Some(input.resource.tools.iter().map(|tool| &tool.name).filter(|name| is_visible(name)).cloned().collect())
}

/// Returns the effect of what was permitted, by the catalogue. A list is a read.
#[must_use]
pub fn effect_of(permitted: &Permitted, resource: &Resource) -> Effect {
    match permitted {
        Permitted::Call(name) => {
            let tool = resource.tools.iter().find(|tool| tool.name == *name);
            // An unknown effect counts as the worst one.
            tool.map_or(Effect::Destructive, |tool| tool.effect)
        }
        Permitted::ListTools(_) | Permitted::ListResources => Effect::Read,
    }
}

/// Which evaluations of a batch are made (Authorization API 1.0 §6.1.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchSemantic {
    /// All of them.
    #[default]
    ExecuteAll,
    /// All up to the first denied one.
    DenyOnFirstDeny,
    /// All up to the first permitted one.
    PermitOnFirstPermit,
}

impl BatchSemantic {
    /// All semantics.
    pub const ALL: [Self; 3] = [Self::ExecuteAll, Self::DenyOnFirstDeny, Self::PermitOnFirstPermit];

    /// Returns the wire name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ExecuteAll => "execute_all",
            Self::DenyOnFirstDeny => "deny_on_first_deny",
            Self::PermitOnFirstPermit => "permit_on_first_permit",
        }
    }

    /// Parses the wire name.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|semantic| semantic.as_str() == word)
    }

    /// Returns whether a decision is the last one of its batch.
    #[must_use]
    pub fn ends_after(self, is_permitted: bool) -> bool {
        match self {
            Self::ExecuteAll => false,
            Self::DenyOnFirstDeny => !is_permitted,
            Self::PermitOnFirstPermit => is_permitted,
        }
    }
}
