//! `/v1/admin/revocations`: taking back, holding back, shutting out; one thing, or many tasks after a dry run.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{RawQuery, State},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    app::{
        AdminAction, BulkReceipt, BulkTaskAction, DryRun, MAX_TASKS, RequestError, Revocation, RevocationTarget,
        Selection,
    },
    domain::{
        id::{ClientId, Reason, Subject, TaskId, TokenId},
        task::{Requester, TaskState},
        time::Timestamp,
        uri::{IssuerUrl, ResourceUri},
    },
    http::{
        AppState,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            idempotency_key::IdempotencyKey,
            json::{self, JsonBody},
            prefer_wait::PreferWait,
            query::Query,
        },
        views::{ListView, PropagationView, RevocationReceiptView, RevocationView, TokenView},
    },
    ports::TaskFilter,
};

/// The body of `POST /v1/admin/revocations`: what it is about, by its kind, and what every kind has.
#[derive(Debug)]
struct RevocationRequest {
    target: TargetBody,
    options: RevocationOptions,
}

impl TryFrom<Map<String, Value>> for RevocationRequest {
    type Error = RequestError;

    fn try_from(members: Map<String, Value>) -> Result<Self, Self::Error> {
        let (how, about) = members.into_iter().partition(|(name, _)| OPTION_MEMBERS.contains(&name.as_str()));
        Ok(Self { target: json::from_value(Value::Object(about))?, options: json::from_value(Value::Object(how))? })
    }
}

const OPTION_MEMBERS: [&str; 5] = ["verb", "disable", "dry_run", "confirmation", "reason"];

/// What every kind has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationOptions {
    #[serde(default)]
    verb: RevocationVerb,
    #[serde(default)]
    disable: bool,
    #[serde(default)]
    dry_run: bool,
    confirmation: Option<String>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RevocationVerb {
    #[default]
    Revoke,
    Suspend,
    Resume,
    Enable,
}

impl RevocationOptions {
    fn parse_action(&self) -> Result<AdminAction, RequestError> {
        match (self.verb, self.disable) {
            (RevocationVerb::Revoke, false) => Ok(AdminAction::Revoke),
            (RevocationVerb::Revoke, true) => Ok(AdminAction::Block),
            (RevocationVerb::Suspend, false) => Ok(AdminAction::Suspend),
            (RevocationVerb::Resume, false) => Ok(AdminAction::Resume),
            (RevocationVerb::Enable, false) => Ok(AdminAction::Unblock),
            (RevocationVerb::Suspend | RevocationVerb::Resume | RevocationVerb::Enable, true) => {
                Err(RequestError::InvalidParameter("disable", "goes with the verb `revoke` only"))
            }
        }
    }
}

/// What it is about.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum TargetBody {
    /// One token, with all that was derived from it.
    Token {
        /// Its `jti`.
        id: TokenId,
    },
    /// One task, with all its tokens.
    Task {
        /// Its id.
        id: TaskId,
    },
    /// Everything issued so far in a requester's name.
    Requester {
        /// The identity provider.
        issuer: IssuerUrl,
        /// The subject, prefix included.
        subject: Subject,
    },
    /// Everything issued so far that an agent acts in.
    Agent {
        /// Its client id.
        id: ClientId,
    },
    /// Everything issued so far for a resource: named by one of the two.
    Resource {
        /// Its client id, as long as it is registered.
        id: Option<ClientId>,
        /// Its URI.
        uri: Option<ResourceUri>,
    },
    /// Everything issued so far on the word of an identity provider.
    Issuer {
        /// Its identifier.
        id: IssuerUrl,
    },
    /// Many tasks: these, or all that fit.
    Tasks {
        ids: Option<Vec<TaskId>>,
        issuer: Option<IssuerUrl>,
        subject: Option<Subject>,
        agent: Option<ClientId>,
        state: Option<TaskState>,
        resource: Option<ResourceUri>,
        opened_from: Option<String>,
        opened_before: Option<String>,
    },
}

/// One thing or many tasks.
enum RevocationSubject {
    Target(RevocationTarget),
    Tasks(Selection),
}

impl TargetBody {
    fn into_subject(self) -> Result<RevocationSubject, RequestError> {
        let one = match self {
            Self::Token { id } => RevocationTarget::Token(id),
            Self::Task { id } => RevocationTarget::Task(id),
            Self::Requester { issuer, subject } => RevocationTarget::Requester(Requester { issuer, subject }),
            Self::Agent { id } => RevocationTarget::Agent(id),
            Self::Resource { id: Some(id), uri: None } => RevocationTarget::Resource(id),
            Self::Resource { id: None, uri: Some(uri) } => RevocationTarget::ResourceAt(uri),
            Self::Resource { .. } => {
                return Err(RequestError::InvalidParameter("id", "name the resource by `id` or by `uri`"));
            }
            Self::Issuer { id } => RevocationTarget::Issuer(id),
            Self::Tasks { ids, issuer, subject, agent, state, resource, opened_from, opened_before } => {
                let requester = match (issuer, subject) {
                    (Some(issuer), Some(subject)) => Some((issuer, subject.to_string())),
                    (None, None) => None,
                    (Some(_), None) => return Err(RequestError::MissingParameter("subject")),
                    (None, Some(_)) => return Err(RequestError::MissingParameter("issuer")),
                };
                let filter = TaskFilter {
                    requester,
                    agent,
                    state,
                    only_open: false,
                    resource,
                    created_from: opened_from.map(|text| parse_time("opened_from", &text)).transpose()?,
                    created_before: opened_before.map(|text| parse_time("opened_before", &text)).transpose()?,
                };
                return parse_selection(ids, filter).map(RevocationSubject::Tasks);
            }
        };
        Ok(RevocationSubject::Target(one))
    }
}

fn parse_selection(ids: Option<Vec<TaskId>>, filter: TaskFilter) -> Result<Selection, RequestError> {
    let is_open = filter == TaskFilter::default();
    match ids {
        Some(_) if !is_open => {
            Err(RequestError::InvalidParameter("ids", "name the tasks, or say what they have in common"))
        }
        Some(ids) if ids.is_empty() || ids.len() > MAX_TASKS => {
            Err(RequestError::InvalidParameter("ids", "1 to 1000 tasks"))
        }
        Some(ids) => Ok(Selection::Ids(ids.into_iter().collect::<BTreeSet<_>>())),
        // All tasks of everybody is nothing to select by a member that was forgotten.
        None if is_open => Err(RequestError::MissingParameter("ids")),
        None => Ok(Selection::Matching(filter)),
    }
}

fn parse_time(name: &'static str, text: &str) -> Result<Timestamp, RequestError> {
    Timestamp::parse_rfc3339(text).ok_or(RequestError::InvalidParameter(name, "must be an RFC 3339 time"))
}

/// What would happen.
#[derive(Serialize)]
struct DryRunView {
    dry_run: bool,
    tokens: u64,
    tasks: u64,
    agents: u64,
    /// Whether all live tokens were looked at; otherwise the numbers are the least that it would be.
    complete: bool,
    sample: SampleView,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_before: Option<String>,
}

/// Some of what it would happen to.
#[derive(Serialize)]
struct SampleView {
    tokens: Vec<TokenView>,
    tasks: Vec<TaskId>,
}

impl From<DryRun> for DryRunView {
    fn from(found: DryRun) -> Self {
        let (tasks, agents, some) = (found.task_count(), found.agent_count(), found.sample_tasks());
        let (confirmation, before) = found.confirmation.unzip();
        Self {
            dry_run: true,
            tokens: found.token_count,
            tasks,
            agents,
            complete: found.is_complete,
            sample: SampleView { tokens: found.sample.into_iter().map(Into::into).collect(), tasks: some },
            confirmation,
            confirm_before: before.map(Timestamp::to_rfc3339),
        }
    }
}

/// What was done to a selection of tasks.
#[derive(Serialize)]
struct BulkTransitionView {
    kind: &'static str,
    tasks: u64,
    at: String,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl From<&BulkReceipt> for BulkTransitionView {
    fn from(BulkReceipt { tasks, at, propagation: spread, .. }: &BulkReceipt) -> Self {
        Self { kind: "tasks", tasks: *tasks, at: at.to_rfc3339(), propagation: spread.into() }
    }
}

/// `POST /v1/admin/revocations`
pub(in crate::http) async fn revoke(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    patience: PreferWait,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response, Problem> {
    let RevocationRequest { target: about, options: how } = RevocationRequest::try_from(body)?;
    let what = how.parse_action()?;
    if how.dry_run && how.confirmation.is_some() {
        return Err(RequestError::InvalidParameter("confirmation", "is what a dry run gives").into());
    }
    let service = &app.service;
    match about.into_subject()? {
        RevocationSubject::Tasks(tasks) => {
            let bulk =
                BulkTaskAction { selection: tasks, action: what, reason: how.reason, confirmation: how.confirmation };
            if how.dry_run {
                return Ok(Json(DryRunView::from(service.dry_run_tasks(&admin, &bulk, &cx).await?)).into_response());
            }
            let turned = service.transition_tasks(&admin, &bulk, patience.0, &cx).await?;
            Ok(patience.respond(&app, &turned.propagation, BulkTransitionView::from(&turned)))
        }
        RevocationSubject::Target(_) if how.confirmation.is_some() => {
            Err(RequestError::InvalidParameter("confirmation", "goes with a selection of tasks only").into())
        }
        RevocationSubject::Target(target) => {
            let revocation = Revocation { target, action: what, reason: how.reason, idempotency_key };
            if how.dry_run {
                return Ok(Json(DryRunView::from(service.dry_run(&admin, &revocation, &cx).await?)).into_response());
            }
            let revoked = service.revoke_with_wait(&admin, revocation, patience.0, &cx).await?;
            Ok(patience.respond(&app, &revoked.propagation, RevocationReceiptView::from(&revoked)))
        }
    }
}

/// `GET /v1/admin/revocations`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    _: AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<RevocationView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    Ok(Json(ListView::from_page(app.service.list_revocations(&query.parse_page()?).await?, RevocationView::from)))
}
