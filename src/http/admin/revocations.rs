//! `/v1/admin/revocations`: revoke, suspend, resume, block and unblock one target, or many tasks
//! after a dry run. The blocks in force are listed by [`blocks`](super::blocks).

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

/// The body of `POST /v1/admin/revocations`: one JSON object with the members of the target and of
/// the options.
///
/// serde's `flatten` and `deny_unknown_fields` exclude each other, and unknown members must be
/// rejected. The members are therefore split by name, and target and options are deserialized
/// apart.
#[derive(Debug)]
struct RevocationRequest {
    target: TargetBody,
    options: RevocationOptions,
}

impl TryFrom<Map<String, Value>> for RevocationRequest {
    type Error = RequestError;

    fn try_from(members: Map<String, Value>) -> Result<Self, Self::Error> {
        let (options, target) = members.into_iter().partition(|(name, _)| OPTION_MEMBERS.contains(&name.as_str()));
        Ok(Self { target: json::from_tagged(target, "kind")?, options: json::from_value(Value::Object(options))? })
    }
}

/// The members of [`RevocationOptions`].
const OPTION_MEMBERS: [&str; 4] = ["verb", "dry_run", "confirmation", "reason"];

/// The members that every kind of target has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RevocationOptions {
    #[serde(default)]
    verb: AdminAction,
    #[serde(default)]
    dry_run: bool,
    confirmation: Option<String>,
    reason: Reason,
}

/// The members of the target, by its `kind`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum TargetBody {
    /// One token and everything derived from it.
    Token {
        /// The `jti` of the token.
        id: TokenId,
    },
    /// One task and all its tokens.
    Task {
        /// The id of the task.
        id: TaskId,
    },
    /// Everything issued so far on behalf of a requester.
    Requester {
        /// The identity provider.
        issuer: IssuerUrl,
        /// The subject, prefix included.
        subject: Subject,
    },
    /// Everything issued so far with an agent in its chain.
    Agent {
        /// The client id of the agent.
        id: ClientId,
    },
    /// All agents: suspended and resumed only.
    Agents {},
    /// Everything issued so far for a resource, named by exactly one of the two members.
    Resource {
        /// The client id of the resource, while it is registered.
        id: Option<ClientId>,
        /// The URI of the resource.
        uri: Option<ResourceUri>,
    },
    /// Everything issued so far for users of an identity provider.
    Issuer {
        /// The issuer identifier.
        id: IssuerUrl,
    },
    /// Many tasks, by id or by filter.
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

/// One target or many tasks.
enum RevocationSubject {
    Target(RevocationTarget),
    Tasks(Selection),
}

impl TargetBody {
    fn into_subject(self) -> Result<RevocationSubject, RequestError> {
        let target = match self {
            Self::Token { id } => RevocationTarget::Token(id),
            Self::Task { id } => RevocationTarget::Task(id),
            Self::Requester { issuer, subject } => RevocationTarget::Requester(Requester { issuer, subject }),
            Self::Agent { id } => RevocationTarget::Agent(id),
            Self::Agents {} => RevocationTarget::AllAgents,
            Self::Resource { id: Some(id), uri: None } => RevocationTarget::Resource(id),
            Self::Resource { id: None, uri: Some(uri) } => RevocationTarget::ResourceAt(uri),
            Self::Resource { .. } => {
                return Err(RequestError::InvalidParameter("id", "name the resource by either `id` or `uri`"));
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
        Ok(RevocationSubject::Target(target))
    }
}

fn parse_selection(ids: Option<Vec<TaskId>>, filter: TaskFilter) -> Result<Selection, RequestError> {
    let is_unfiltered = filter == TaskFilter::default();
    match ids {
        Some(_) if !is_unfiltered => Err(RequestError::InvalidParameter("ids", "can't be combined with filters")),
        Some(ids) if ids.is_empty() || ids.len() > MAX_TASKS => {
            Err(RequestError::InvalidParameter("ids", "must be 1 to 1000 task ids"))
        }
        Some(ids) => Ok(Selection::Ids(ids.into_iter().collect::<BTreeSet<_>>())),
        // A forgotten filter must not select all tasks.
        None if is_unfiltered => Err(RequestError::MissingParameter("ids")),
        None => Ok(Selection::Matching(filter)),
    }
}

fn parse_time(name: &'static str, text: &str) -> Result<Timestamp, RequestError> {
    Timestamp::parse_rfc3339(text).ok_or(RequestError::InvalidParameter(name, "must be an RFC 3339 time"))
}

/// The expected effect of a request.
#[derive(Serialize)]
struct DryRunView {
    dry_run: bool,
    tokens: u64,
    tasks: u64,
    agents: u64,
    /// Whether all live tokens were evaluated. Otherwise the counts are lower bounds.
    complete: bool,
    sample: SampleView,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirmation: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm_before: Option<String>,
}

/// Some of the affected tokens and tasks.
#[derive(Serialize)]
struct SampleView {
    tokens: Vec<TokenView>,
    tasks: Vec<TaskId>,
}

impl From<DryRun> for DryRunView {
    fn from(dry_run: DryRun) -> Self {
        let (tasks, agents, sample_tasks) = (dry_run.task_count(), dry_run.agent_count(), dry_run.sample_tasks());
        let (confirmation, expires) = dry_run.confirmation.unzip();
        Self {
            dry_run: true,
            tokens: dry_run.token_count,
            tasks,
            agents,
            complete: dry_run.is_complete,
            sample: SampleView { tokens: dry_run.sample.into_iter().map(Into::into).collect(), tasks: sample_tasks },
            confirmation,
            confirm_before: expires.map(Timestamp::to_rfc3339),
        }
    }
}

/// A change of many tasks.
#[derive(Serialize)]
struct BulkTransitionView {
    kind: &'static str,
    tasks: u64,
    at: String,
    #[serde(flatten)]
    propagation: PropagationView,
}

impl From<&BulkReceipt> for BulkTransitionView {
    fn from(BulkReceipt { tasks, at, propagation, .. }: &BulkReceipt) -> Self {
        Self { kind: "tasks", tasks: *tasks, at: at.to_rfc3339(), propagation: propagation.into() }
    }
}

/// `POST /v1/admin/revocations`
pub(in crate::http) async fn revoke(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    IdempotencyKey(idempotency_key): IdempotencyKey,
    max_wait: PreferWait,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response, Problem> {
    let RevocationRequest { target, options } = RevocationRequest::try_from(body)?;
    let RevocationOptions { verb: action, dry_run, confirmation, reason } = options;
    if dry_run && confirmation.is_some() {
        return Err(RequestError::InvalidParameter("confirmation", "can't be combined with `dry_run`").into());
    }
    let service = &app.service;
    match target.into_subject()? {
        RevocationSubject::Tasks(selection) => {
            let bulk = BulkTaskAction { selection, action, reason, confirmation };
            if dry_run {
                return Ok(Json(DryRunView::from(service.dry_run_tasks(&admin, &bulk, &cx).await?)).into_response());
            }
            let receipt = service.transition_tasks(&admin, &bulk, max_wait.0, &cx).await?;
            Ok(max_wait.respond(&app, &receipt.propagation, BulkTransitionView::from(&receipt)))
        }
        RevocationSubject::Target(_) if confirmation.is_some() => {
            Err(RequestError::InvalidParameter("confirmation", "allowed only for a selection of tasks").into())
        }
        RevocationSubject::Target(target) => {
            let revocation = Revocation { target, action, reason, idempotency_key };
            if dry_run {
                return Ok(Json(DryRunView::from(service.dry_run(&admin, &revocation, &cx).await?)).into_response());
            }
            let receipt = service.revoke_with_wait(&admin, revocation, max_wait.0, &cx).await?;
            Ok(max_wait.respond(&app, &receipt.propagation, RevocationReceiptView::from(&receipt)))
        }
    }
}

/// `GET /v1/admin/revocations`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, _): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<RevocationView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    let page = app.service.list_revocations(&query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, RevocationView::from)))
}
