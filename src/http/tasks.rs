//! `/v1/tasks/…` for the agents of a task, and `/v1/admin/tasks/…` for admins.

use std::{future::Future, pin::Pin};

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Deserialize;

use crate::{
    app::{BadRequest, Conflict, Turning},
    domain::{
        call::CallReport,
        id::{OutcomeText, Reason, TaskId},
        task::{Act, TaskState},
    },
    http::{
        App,
        body::JsonBody,
        client_auth::{Operator, Participant, Reader},
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
pub(super) fn by_agent(
    act: Act,
) -> impl Fn(State<App>, Participant, Id, Patience, JsonBody<ActBody>) -> Answer + Clone + Send + Sync + 'static {
    move |State(app), Participant(caller, cx), id, patience, JsonBody(body)| {
        Box::pin(async move {
            let (id, turning) = (task_id(&id)?, body.turning(act));
            let turned = app.service.turn_own_task(&caller, id, &turning, patience.0, &cx).await?;
            let spread = turned.spread;
            Ok(patience.answer(&app, &spread, TurnedTaskView::of(turned, cx.now)))
        })
    }
}

/// `POST /v1/admin/tasks/{id}/…`
pub(super) fn by_admin(
    act: Act,
) -> impl Fn(State<App>, Operator, Id, Patience, JsonBody<ActBody>) -> Answer + Clone + Send + Sync + 'static {
    move |State(app), Operator(admin, cx), id, patience, JsonBody(body)| {
        Box::pin(async move {
            let (id, turning) = (task_id(&id)?, body.turning(act));
            let turned = app.service.turn_any_task(&admin, id, &turning, patience.0, &cx).await?;
            let spread = turned.spread;
            Ok(patience.answer(&app, &spread, TurnedTaskView::of(turned, cx.now)))
        })
    }
}

/// `GET /v1/tasks/{id}`
pub(super) async fn read_own(
    State(app): State<App>,
    Participant(caller, cx): Participant,
    id: Id,
) -> Result<Json<TaskView>, Problem> {
    let task = app.service.read_own_task(&caller, task_id(&id)?).await?;
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
    let rule = "must be active, suspended, completed, failed, expired or revoked";
    let state = |word| TaskState::parse(word).ok_or(BadRequest::Invalid("state", rule));
    let filter = TaskFilter {
        requester: query.requester()?,
        agent: query.value("agent")?,
        state: query.text("state").map(state).transpose()?,
        resource: query.value("resource")?,
        from: query.time("from")?,
        until: query.time("until")?,
    };
    let page = app.service.list_tasks(&filter, &query.page()?).await?;
    Ok(Json(ListView::of(page, |task| TaskView::of(task, cx.now))))
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
pub(super) async fn trail(State(app): State<App>, Reader(_, cx): Reader, id: Id) -> Result<Json<TrailView>, Problem> {
    let trail = app.service.task_trail(task_id(&id)?).await?;
    Ok(Json(TrailView::of(trail, cx.now)))
}

fn task_id(Id(id): &Id) -> Result<TaskId, Problem> {
    id.parse::<TaskId>().map_err(|_| Conflict::NotFound("task").into())
}
