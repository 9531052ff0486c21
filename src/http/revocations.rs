//! `/v1/admin/revocations`: taking back, holding back, shutting out; one thing, or many tasks after a dry run.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{
    app::{BadRequest, Bulk, DryRun, MOST_TASKS, Revocation, Selection, Turned, Wanted, What},
    domain::{
        id::{ClientId, Reason, Subject, TaskId, TokenId},
        task::{Requester, TaskState},
        time::Timestamp,
        uri::{IssuerUrl, ResourceUri},
    },
    http::{
        App,
        admin::idempotency_key,
        body::{JsonBody, without_values},
        client_auth::{Operator, Reader},
        problem::Problem,
        query::Query,
        replicas::{Patience, SpreadView},
        views::{ListView, RevocationView, RevokedView, ShutOutView, TokenView},
    },
    ports::TaskFilter,
};

/// The body of `POST /v1/admin/revocations`: what it is about, by its kind, and what every kind has.
#[derive(Debug)]
struct RevocationBody {
    about: About,
    how: Manner,
}

impl TryFrom<Map<String, Value>> for RevocationBody {
    type Error = serde_json::Error;

    fn try_from(members: Map<String, Value>) -> Result<Self, Self::Error> {
        let (how, about) = members.into_iter().partition(|(name, _)| MANNER.contains(&name.as_str()));
        Ok(Self {
            about: serde_json::from_value(Value::Object(about))?,
            how: serde_json::from_value(Value::Object(how))?,
        })
    }
}

const MANNER: [&str; 5] = ["verb", "disable", "dry_run", "confirmation", "reason"];

/// What every kind has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manner {
    #[serde(default)]
    verb: VerbWord,
    #[serde(default)]
    disable: bool,
    #[serde(default)]
    dry_run: bool,
    confirmation: Option<String>,
    reason: Reason,
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum VerbWord {
    #[default]
    Revoke,
    Suspend,
    Resume,
    Enable,
}

impl Manner {
    fn what(&self) -> Result<What, BadRequest> {
        match (self.verb, self.disable) {
            (VerbWord::Revoke, false) => Ok(What::Revoke),
            (VerbWord::Revoke, true) => Ok(What::Disable),
            (VerbWord::Suspend, false) => Ok(What::Suspend),
            (VerbWord::Resume, false) => Ok(What::Resume),
            (VerbWord::Enable, false) => Ok(What::Enable),
            (VerbWord::Suspend | VerbWord::Resume | VerbWord::Enable, true) => {
                Err(BadRequest::Invalid("disable", "goes with the verb `revoke` only"))
            }
        }
    }
}

/// What it is about.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
enum About {
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
enum Concerned {
    One(Wanted),
    Many(Selection),
}

impl About {
    fn concerned(self) -> Result<Concerned, BadRequest> {
        let one = match self {
            Self::Token { id } => Wanted::Token(id),
            Self::Task { id } => Wanted::Task(id),
            Self::Requester { issuer, subject } => Wanted::Requester(Requester { issuer, subject }),
            Self::Agent { id } => Wanted::Agent(id),
            Self::Resource { id: Some(id), uri: None } => Wanted::Resource(id),
            Self::Resource { id: None, uri: Some(uri) } => Wanted::ResourceAt(uri),
            Self::Resource { .. } => return Err(BadRequest::Invalid("id", "name the resource by `id` or by `uri`")),
            Self::Issuer { id } => Wanted::Issuer(id),
            Self::Tasks { ids, issuer, subject, agent, state, resource, opened_from, opened_before } => {
                let requester = match (issuer, subject) {
                    (Some(issuer), Some(subject)) => Some((issuer, subject.to_string())),
                    (None, None) => None,
                    (Some(_), None) => return Err(BadRequest::Missing("subject")),
                    (None, Some(_)) => return Err(BadRequest::Missing("issuer")),
                };
                let filter = TaskFilter {
                    requester,
                    agent,
                    state,
                    only_open: false,
                    resource,
                    from: opened_from.map(|text| time("opened_from", &text)).transpose()?,
                    until: opened_before.map(|text| time("opened_before", &text)).transpose()?,
                };
                return selection(ids, filter).map(Concerned::Many);
            }
        };
        Ok(Concerned::One(one))
    }
}

fn selection(ids: Option<Vec<TaskId>>, filter: TaskFilter) -> Result<Selection, BadRequest> {
    let is_open = filter == TaskFilter::default();
    match ids {
        Some(_) if !is_open => Err(BadRequest::Invalid("ids", "name the tasks, or say what they have in common")),
        Some(ids) if ids.is_empty() || ids.len() > MOST_TASKS => Err(BadRequest::Invalid("ids", "1 to 1000 tasks")),
        Some(ids) => Ok(Selection::These(ids.into_iter().collect::<BTreeSet<_>>())),
        // All tasks of everybody is nothing to select by a member that was forgotten.
        None if is_open => Err(BadRequest::Missing("ids")),
        None => Ok(Selection::Fitting(filter)),
    }
}

fn time(name: &'static str, text: &str) -> Result<Timestamp, BadRequest> {
    Timestamp::parse_rfc3339(text).ok_or(BadRequest::Invalid(name, "must be an RFC 3339 time"))
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
        let (tasks, agents, some) = (found.tasks(), found.agents(), found.some_tasks());
        let (confirmation, before) = found.confirmation.unzip();
        Self {
            dry_run: true,
            tokens: found.tokens,
            tasks,
            agents,
            complete: found.is_complete,
            sample: SampleView { tokens: found.sample.into_iter().map(Into::into).collect(), tasks: some },
            confirmation,
            confirm_before: before.map(Timestamp::rfc3339),
        }
    }
}

/// What was done to a selection of tasks.
#[derive(Serialize)]
struct TurnedView {
    kind: &'static str,
    tasks: u64,
    at: String,
    #[serde(flatten)]
    spread: SpreadView,
}

impl From<&Turned> for TurnedView {
    fn from(Turned { tasks, at, spread, .. }: &Turned) -> Self {
        Self { kind: "tasks", tasks: *tasks, at: at.rfc3339(), spread: spread.into() }
    }
}

/// `POST /v1/admin/revocations`
pub(super) async fn revoke(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    headers: HeaderMap,
    patience: Patience,
    JsonBody(body): JsonBody<Map<String, Value>>,
) -> Result<Response, Problem> {
    let RevocationBody { about, how } =
        RevocationBody::try_from(body).map_err(|fault| BadRequest::NotJson(without_values(&fault.to_string())))?;
    let (what, idempotency_key) = (how.what()?, idempotency_key(&headers)?);
    if how.dry_run && how.confirmation.is_some() {
        return Err(BadRequest::Invalid("confirmation", "is what a dry run gives").into());
    }
    let service = &app.service;
    match about.concerned()? {
        Concerned::Many(tasks) => {
            let bulk = Bulk { tasks, what, reason: how.reason, confirmation: how.confirmation };
            if how.dry_run {
                return Ok(Json(DryRunView::from(service.dry_run_tasks(&admin, &bulk, &cx).await?)).into_response());
            }
            let turned = service.turn_tasks(&admin, &bulk, patience.0, &cx).await?;
            Ok(patience.answer(&app, &turned.spread, TurnedView::from(&turned)))
        }
        Concerned::One(_) if how.confirmation.is_some() => {
            Err(BadRequest::Invalid("confirmation", "goes with a selection of tasks only").into())
        }
        Concerned::One(target) => {
            let revocation = Revocation { target, what, reason: how.reason, idempotency_key };
            if how.dry_run {
                return Ok(Json(DryRunView::from(service.dry_run(&admin, &revocation, &cx).await?)).into_response());
            }
            let revoked = service.revoke_within(&admin, revocation, patience.0, &cx).await?;
            Ok(patience.answer(&app, &revoked.spread, RevokedView::from(&revoked)))
        }
    }
}

/// `GET /v1/admin/revocations`
pub(super) async fn list(
    State(app): State<App>,
    _: Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<RevocationView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    Ok(Json(ListView::of(app.service.list_revocations(&query.page()?).await?, RevocationView::from)))
}

/// `GET /v1/admin/shut-out`
pub(super) async fn list_shut_out(Reader(caller, _): Reader) -> Json<ListView<ShutOutView>> {
    let all = caller.client().view().registry.shut_out().iter().map(ShutOutView::from);
    Json(ListView::whole(all.collect()))
}
