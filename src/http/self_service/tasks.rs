//! `/v1/tasks`: tasks, for their agents and requesters.

use axum::{
    Json,
    extract::{RawQuery, State},
    response::Response,
};

use crate::{
    app::Caller,
    domain::task::TaskAction,
    http::{
        AppState, HandlerFuture,
        admin::tasks::{TransitionBody, parse_filter, parse_task_id},
        error::problem::Problem,
        extract::{
            auth::{RequesterAuth, TaskParticipant},
            idempotency_key::IdempotencyKey,
            json::JsonBody,
            path::PathId,
            prefer_wait::PreferWait,
            query::Query,
        },
        views::{ListView, TaskView, TransitionedTaskView},
    },
};

/// Returns the handler of `POST /v1/tasks/{id}/{action}`.
pub(in crate::http) fn transition(
    action: TaskAction,
) -> impl Fn(State<AppState>, TaskParticipant, PathId, PreferWait, IdempotencyKey, JsonBody<TransitionBody>) -> HandlerFuture
+ Clone
+ Send
+ Sync
+ 'static {
    move |State(app), TaskParticipant(caller, cx), id, wait, IdempotencyKey(key), JsonBody(body)| {
        Box::pin(async move {
            let (id, request) = (parse_task_id(&id)?, body.into_request(action));
            let service = &app.service;
            let outcome = match caller {
                Caller::Client(caller) => service.transition_own_task(&caller, id, &request, key, wait.0, &cx).await?,
                Caller::Requester(caller) => {
                    service.transition_requested_task(&caller, id, &request, key, wait.0, &cx).await?
                }
            };
            let propagation = outcome.propagation;
            Ok(wait.respond(&app, &propagation, TransitionedTaskView::new(outcome, cx.now)))
        })
    }
}

/// `POST /v1/tasks/{id}/revoke`
pub(in crate::http) async fn revoke(
    State(app): State<AppState>,
    RequesterAuth(caller, cx): RequesterAuth,
    id: PathId,
    wait: PreferWait,
    IdempotencyKey(key): IdempotencyKey,
    JsonBody(body): JsonBody<TransitionBody>,
) -> Result<Response, Problem> {
    let (id, request) = (parse_task_id(&id)?, body.into_request(TaskAction::Revoke));
    let outcome = app.service.transition_requested_task(&caller, id, &request, key, wait.0, &cx).await?;
    let propagation = outcome.propagation;
    Ok(wait.respond(&app, &propagation, TransitionedTaskView::new(outcome, cx.now)))
}

/// `GET /v1/tasks`
pub(in crate::http) async fn list(
    State(app): State<AppState>,
    TaskParticipant(caller, cx): TaskParticipant,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TaskView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent", "state", "resource", "from", "until"])?;
    let (filter, page) = (parse_filter(&query)?, query.parse_page()?);
    let permit = match &caller {
        Caller::Client(caller) => app.service.admit_list(caller)?,
        Caller::Requester(caller) => app.service.admit_requester_list(caller)?,
    };
    let page = match caller {
        Caller::Client(caller) => app.service.list_opened_tasks(&caller, filter, &page).await?,
        Caller::Requester(caller) => app.service.list_own_tasks(&caller, filter, &page).await?,
    };
    permit.count_rows(page.items.len());
    Ok(Json(ListView::from_page(page, |task| TaskView::new(task, cx.now))))
}

/// `GET /v1/tasks/{id}`
pub(in crate::http) async fn read(
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
