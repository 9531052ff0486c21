//! `/v1/admin/tasks`: tasks, for admins.

use axum::{
    Json,
    extract::{RawQuery, State},
};
use serde::Deserialize;

use crate::{
    app::{ConflictError, RequestError, TokenNode, TransitionRequest},
    domain::{
        id::{OutcomeText, Reason, TaskId},
        task::{TaskAction, TaskState},
    },
    http::{
        AppState, HandlerFuture,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            idempotency_key::IdempotencyKey,
            json::JsonBody,
            path::PathId,
            prefer_wait::PreferWait,
            query::Query,
        },
        views::{ListView, TaskTreeView, TaskView, TrailView, TransitionedTaskView},
    },
    ports::TaskFilter,
};

/// The body of a task transition.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TransitionBody {
    reason: Option<Reason>,
    outcome: Option<OutcomeText>,
}

impl TransitionBody {
    pub(in crate::http) fn into_request(self, action: TaskAction) -> TransitionRequest {
        TransitionRequest { action, reason: self.reason, outcome: self.outcome }
    }
}

/// Returns the handler of `POST /v1/admin/tasks/{id}/{action}`.
pub(in crate::http) fn transition(
    action: TaskAction,
) -> impl Fn(State<AppState>, AdminOperator, PathId, PreferWait, IdempotencyKey, JsonBody<TransitionBody>) -> HandlerFuture
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(app), AdminOperator(admin, cx), id, wait, IdempotencyKey(key), JsonBody(body)| {
        Box::pin(async move {
            let (id, request) = (parse_task_id(&id)?, body.into_request(action));
            let outcome = app.service.transition_any_task(&admin, id, &request, key, wait.0, &cx).await?;
            let propagation = outcome.propagation;
            Ok(wait.respond(&app, &propagation, TransitionedTaskView::new(outcome, cx.now)))
        })
    }
}

/// `GET /v1/admin/tasks`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(admin, cx): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let names = ["after", "limit", "issuer", "subject", "agent", "state", "resource", "from", "until"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TaskFilter { requester: query.parse_requester()?, ..parse_filter(&query)? };
    let page = app.service.list_tasks(&filter, &query.parse_page()?).await?;
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, |task| TaskView::new(task, cx.now))))
}

/// `GET /v1/admin/tasks/{id}`
pub(in crate::http) async fn read(
    State(app): State<AppState>,
    AdminReader(admin, cx): AdminReader,
    id: PathId,
) -> Result<Json<TaskTreeView>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let tree = app.service.read_task_tree(&admin, parse_task_id(&id)?, &cx).await?;
    permit.count_rows(tree.tokens.iter().map(TokenNode::row_count).sum());
    Ok(Json(TaskTreeView::new(tree, cx.now)))
}

/// `GET /v1/admin/tasks/{id}/trail`
pub(in crate::http) async fn trail(
    State(app): State<AppState>,
    AdminReader(admin, cx): AdminReader,
    id: PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<TrailView>, Problem> {
    let permit = app.service.admit_list(&admin)?;
    let query = Query::parse(query.as_deref(), &["after"])?;
    let trail = app.service.read_task_trail(parse_task_id(&id)?, query.text("after").map(str::to_owned)).await?;
    permit.count_rows(trail.entries.len());
    Ok(Json(TrailView::new(trail, cx.now)))
}

/// Parses the filter of a task list, without the requester.
pub(in crate::http) fn parse_filter(query: &Query) -> Result<TaskFilter, RequestError> {
    let rule = "must be `active`, `suspended`, `completed`, `failed`, `expired` or `revoked`";
    let state = |word| TaskState::parse(word).ok_or(RequestError::InvalidParameter("state", rule));
    Ok(TaskFilter {
        requester: None,
        agent: query.parse_value("agent")?,
        state: query.text("state").map(state).transpose()?,
        only_open: false,
        resource: query.parse_value("resource")?,
        created_from: query.parse_time("from")?,
        created_before: query.parse_time("until")?,
    })
}

pub(in crate::http) fn parse_task_id(PathId(id): &PathId) -> Result<TaskId, Problem> {
    id.parse::<TaskId>().map_err(|_| ConflictError::NotFound("task").into())
}
