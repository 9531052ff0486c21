//! `/v1/tasks…` for the agents of a task and its requester, and `/v1/admin/tasks/…` for admins.

use std::{future::Future, pin::Pin};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::{
    app::{Caller, ConflictError, RequestError, TransitionRequest},
    domain::{
        id::{OutcomeText, Reason, TaskId},
        task::{TaskAction, TaskState, call_report::CallReport},
    },
    http::{
        AppState,
        admin::{registry::extract_idempotency_key, replicas::PreferWait},
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader, RequesterAuth, TaskClient, TaskParticipant},
            json::JsonBody,
            path::PathId,
            query::Query,
        },
        views::{CallReceiptView, ListView, TaskTreeView, TaskView, TrailView, TransitionedTaskView},
    },
    ports::TaskFilter,
};

/// The body of what is done to a task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct TransitionBody {
    reason: Option<Reason>,
    outcome: Option<OutcomeText>,
}

impl TransitionBody {
    fn into_request(self, act: TaskAction) -> TransitionRequest {
        TransitionRequest { action: act, reason: self.reason, outcome: self.outcome }
    }
}

type HandlerFuture = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// `POST /v1/tasks/{id}/…`
pub(in crate::http) fn transition(
    act: TaskAction,
) -> impl Fn(State<AppState>, TaskParticipant, PathId, PreferWait, HeaderMap, JsonBody<TransitionBody>) -> HandlerFuture
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(app), TaskParticipant(caller, cx), id, patience, headers, JsonBody(body)| {
        Box::pin(async move {
            let key = extract_idempotency_key(&headers)?;
            let (id, turning) = (parse_task_id(&id)?, body.into_request(act));
            let service = &app.service;
            let turned = match caller {
                Caller::Client(caller) => {
                    service.transition_own_task(&caller, id, &turning, key, patience.0, &cx).await?
                }
                Caller::Requester(caller) => {
                    service.transition_requested_task(&caller, id, &turning, key, patience.0, &cx).await?
                }
            };
            let spread = turned.propagation;
            Ok(patience.respond(&app, &spread, TransitionedTaskView::new(turned, cx.now)))
        })
    }
}

/// `POST /v1/tasks/{id}/revoke`
pub(in crate::http) async fn revoke_own(
    State(app): State<AppState>,
    RequesterAuth(caller, cx): RequesterAuth,
    id: PathId,
    patience: PreferWait,
    headers: HeaderMap,
    JsonBody(body): JsonBody<TransitionBody>,
) -> Result<Response, Problem> {
    let key = extract_idempotency_key(&headers)?;
    let (id, turning) = (parse_task_id(&id)?, body.into_request(TaskAction::Revoke));
    let turned = app.service.transition_requested_task(&caller, id, &turning, key, patience.0, &cx).await?;
    let spread = turned.propagation;
    Ok(patience.respond(&app, &spread, TransitionedTaskView::new(turned, cx.now)))
}

/// `POST /v1/admin/tasks/{id}/…`
pub(in crate::http) fn admin_transition(
    act: TaskAction,
) -> impl Fn(State<AppState>, AdminOperator, PathId, PreferWait, HeaderMap, JsonBody<TransitionBody>) -> HandlerFuture
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(app), AdminOperator(admin, cx), id, patience, headers, JsonBody(body)| {
        Box::pin(async move {
            let key = extract_idempotency_key(&headers)?;
            let (id, turning) = (parse_task_id(&id)?, body.into_request(act));
            let turned = app.service.transition_any_task(&admin, id, &turning, key, patience.0, &cx).await?;
            let spread = turned.propagation;
            Ok(patience.respond(&app, &spread, TransitionedTaskView::new(turned, cx.now)))
        })
    }
}

/// `GET /v1/tasks`
pub(in crate::http) async fn list_own(
    State(app): State<AppState>,
    TaskParticipant(caller, cx): TaskParticipant,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent", "state", "resource", "from", "until"])?;
    let (filter, page) = (parse_filter(&query)?, query.parse_page()?);
    let page = match caller {
        Caller::Client(caller) => app.service.list_opened_tasks(&caller, filter, &page).await?,
        Caller::Requester(caller) => app.service.list_own_tasks(&caller, filter, &page).await?,
    };
    Ok(Json(ListView::from_page(page, |task| TaskView::new(task, cx.now))))
}

/// `GET /v1/tasks/{id}`
pub(in crate::http) async fn read_own(
    State(app): State<AppState>,
    TaskParticipant(caller, cx): TaskParticipant,
    id: PathId,
) -> Result<Json<TaskView>, Problem> {
    let task = match caller {
        Caller::Client(caller) => app.service.read_own_task(&caller, parse_task_id(&id)?).await?,
        Caller::Requester(caller) => app.service.read_requested_task(&caller, parse_task_id(&id)?).await?,
    };
    Ok(Json(TaskView::new(task, cx.now)))
}

/// `GET /v1/admin/tasks`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let names = ["after", "limit", "issuer", "subject", "agent", "state", "resource", "from", "until"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TaskFilter { requester: query.parse_requester()?, ..parse_filter(&query)? };
    let page = app.service.list_tasks(&filter, &query.parse_page()?).await?;
    Ok(Json(ListView::from_page(page, |task| TaskView::new(task, cx.now))))
}

/// What is wanted of tasks, whosever they are.
fn parse_filter(query: &Query) -> Result<TaskFilter, RequestError> {
    let rule = "must be active, suspended, completed, failed, expired or revoked";
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

/// `GET /v1/admin/tasks/{id}`
pub(in crate::http) async fn read(
    State(app): State<AppState>,
    AdminReader(admin, cx): AdminReader,
    id: PathId,
) -> Result<Json<TaskTreeView>, Problem> {
    let tree = app.service.read_task_tree(&admin, parse_task_id(&id)?, &cx).await?;
    Ok(Json(TaskTreeView::new(tree, cx.now)))
}

/// `POST /v1/tasks/{id}/calls`
pub(in crate::http) async fn report_call(
    State(app): State<AppState>,
    TaskClient(caller, cx): TaskClient,
    id: PathId,
    JsonBody(report): JsonBody<CallReport>,
) -> Result<Response, Problem> {
    let reported = app.service.report_call(&caller, parse_task_id(&id)?, &report, &cx).await?;
    let status = if reported.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(CallReceiptView::new(&report, &reported))).into_response())
}

/// `GET /v1/admin/tasks/{id}/trail`
pub(in crate::http) async fn trail(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
    id: PathId,
    RawQuery(query): RawQuery,
) -> Result<Json<TrailView>, Problem> {
    let query = Query::parse(query.as_deref(), &["after"])?;
    let trail = app.service.read_task_trail(parse_task_id(&id)?, query.text("after").map(str::to_owned)).await?;
    Ok(Json(TrailView::new(trail, cx.now)))
}

fn parse_task_id(PathId(id): &PathId) -> Result<TaskId, Problem> {
    id.parse::<TaskId>().map_err(|_| ConflictError::NotFound("task").into())
}
