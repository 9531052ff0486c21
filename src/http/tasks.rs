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
    app::{BadRequest, Caller, Conflict, Turning},
    domain::{
        call::CallReport,
        id::{OutcomeText, Reason, TaskId},
        task::{Act, TaskState},
    },
    http::{
        App,
        admin::idempotency_key,
        body::JsonBody,
        client_auth::{Operator, Own, Participant, Party, Reader},
        path::Id,
        problem::Problem,
        query::Query,
        replicas::Patience,
        views::{ListView, ReportedView, TaskTreeView, TaskView, TrailView, TurnedTaskView},
    },
    ports::TaskFilter,
};

/// The body of what is done to a task.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActBody {
    reason: Option<Reason>,
    outcome: Option<OutcomeText>,
}

impl ActBody {
    fn turning(self, act: Act) -> Turning {
        Turning { act, reason: self.reason, outcome: self.outcome }
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send>>;

/// `POST /v1/tasks/{id}/…`
pub(super) fn by_party(
    act: Act,
) -> impl Fn(State<App>, Party, Id, Patience, HeaderMap, JsonBody<ActBody>) -> Answer + Clone + Send + Sync + 'static {
    move |State(app), Party(caller, cx), id, patience, headers, JsonBody(body)| {
        Box::pin(async move {
            let key = idempotency_key(&headers)?;
            let (id, turning) = (task_id(&id)?, body.turning(act));
            let service = &app.service;
            let turned = match caller {
                Caller::Client(caller) => service.turn_own_task(&caller, id, &turning, key, patience.0, &cx).await?,
                Caller::Requester(caller) => {
                    service.turn_requested_task(&caller, id, &turning, key, patience.0, &cx).await?
                }
            };
            let spread = turned.spread;
            Ok(patience.answer(&app, &spread, TurnedTaskView::of(turned, cx.now)))
        })
    }
}

/// `POST /v1/tasks/{id}/revoke`
pub(super) async fn revoke_own(
    State(app): State<App>,
    Own(caller, cx): Own,
    id: Id,
    patience: Patience,
    headers: HeaderMap,
    JsonBody(body): JsonBody<ActBody>,
) -> Result<Response, Problem> {
    let key = idempotency_key(&headers)?;
    let (id, turning) = (task_id(&id)?, body.turning(Act::Revoke));
    let turned = app.service.turn_requested_task(&caller, id, &turning, key, patience.0, &cx).await?;
    let spread = turned.spread;
    Ok(patience.answer(&app, &spread, TurnedTaskView::of(turned, cx.now)))
}

/// `POST /v1/admin/tasks/{id}/…`
pub(super) fn by_admin(
    act: Act,
) -> impl Fn(State<App>, Operator, Id, Patience, HeaderMap, JsonBody<ActBody>) -> Answer + Clone + Send + Sync + 'static
{
    move |State(app), Operator(admin, cx), id, patience, headers, JsonBody(body)| {
        Box::pin(async move {
            let key = idempotency_key(&headers)?;
            let (id, turning) = (task_id(&id)?, body.turning(act));
            let turned = app.service.turn_any_task(&admin, id, &turning, key, patience.0, &cx).await?;
            let spread = turned.spread;
            Ok(patience.answer(&app, &spread, TurnedTaskView::of(turned, cx.now)))
        })
    }
}

/// `GET /v1/tasks`
pub(super) async fn list_own(
    State(app): State<App>,
    Party(caller, cx): Party,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent", "state", "resource", "from", "until"])?;
    let (filter, page) = (filter(&query)?, query.page()?);
    let page = match caller {
        Caller::Client(caller) => app.service.list_opened_tasks(&caller, filter, &page).await?,
        Caller::Requester(caller) => app.service.list_own_tasks(&caller, filter, &page).await?,
    };
    Ok(Json(ListView::of(page, |task| TaskView::of(task, cx.now))))
}

/// `GET /v1/tasks/{id}`
pub(super) async fn read_own(
    State(app): State<App>,
    Party(caller, cx): Party,
    id: Id,
) -> Result<Json<TaskView>, Problem> {
    let task = match caller {
        Caller::Client(caller) => app.service.read_own_task(&caller, task_id(&id)?).await?,
        Caller::Requester(caller) => app.service.read_requested_task(&caller, task_id(&id)?).await?,
    };
    Ok(Json(TaskView::of(task, cx.now)))
}

/// `GET /v1/admin/tasks`
pub(super) async fn list(
    State(app): State<App>,
    Reader(_, cx): Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let names = ["after", "limit", "issuer", "subject", "agent", "state", "resource", "from", "until"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TaskFilter { requester: query.requester()?, ..filter(&query)? };
    let page = app.service.list_tasks(&filter, &query.page()?).await?;
    Ok(Json(ListView::of(page, |task| TaskView::of(task, cx.now))))
}

/// What is wanted of tasks, whosever they are.
fn filter(query: &Query) -> Result<TaskFilter, BadRequest> {
    let rule = "must be active, suspended, completed, failed, expired or revoked";
    let state = |word| TaskState::parse(word).ok_or(BadRequest::Invalid("state", rule));
    Ok(TaskFilter {
        requester: None,
        agent: query.value("agent")?,
        state: query.text("state").map(state).transpose()?,
        only_open: false,
        resource: query.value("resource")?,
        from: query.time("from")?,
        until: query.time("until")?,
    })
}

/// `GET /v1/admin/tasks/{id}`
pub(super) async fn read(
    State(app): State<App>,
    Reader(admin, cx): Reader,
    id: Id,
) -> Result<Json<TaskTreeView>, Problem> {
    let tree = app.service.task_tree(&admin, task_id(&id)?, &cx).await?;
    Ok(Json(TaskTreeView::of(tree, cx.now)))
}

/// `POST /v1/tasks/{id}/calls`
pub(super) async fn report_call(
    State(app): State<App>,
    Participant(caller, cx): Participant,
    id: Id,
    JsonBody(report): JsonBody<CallReport>,
) -> Result<Response, Problem> {
    let reported = app.service.report_call(&caller, task_id(&id)?, &report, &cx).await?;
    let status = if reported.is_repeated { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(ReportedView::of(&report, &reported))).into_response())
}

/// `GET /v1/admin/tasks/{id}/trail`
pub(super) async fn trail(
    State(app): State<App>,
    Reader(_, cx): Reader,
    id: Id,
    RawQuery(query): RawQuery,
) -> Result<Json<TrailView>, Problem> {
    let query = Query::parse(query.as_deref(), &["after"])?;
    let trail = app.service.task_trail(task_id(&id)?, query.text("after").map(str::to_owned)).await?;
    Ok(Json(TrailView::of(trail, cx.now)))
}

fn task_id(Id(id): &Id) -> Result<TaskId, Problem> {
    id.parse::<TaskId>().map_err(|_| Conflict::NotFound("task").into())
}
