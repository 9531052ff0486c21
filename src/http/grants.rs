//! `/v1/admin/grants` for admins, and `/v1/grants` for the requesters themselves.

use axum::{
    Json,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{
    app::{BadRequest, Conflict, GrantRequest, Granter},
    domain::{
        authority::{Authority, parse_details},
        id::{ClientId, GrantId, Subject},
        task::Requester,
        time::Timestamp,
        uri::IssuerUrl,
    },
    http::{
        App,
        admin::idempotency_key,
        body::JsonText,
        client_auth::{Operator, Own, Reader},
        path::Id,
        problem::Problem,
        query::Query,
        views::{GrantView, ListView},
    },
    ports::GrantFilter,
};

/// The body of `POST /v1/admin/grants`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GrantBody {
    issuer: IssuerUrl,
    subject: Subject,
    agent: ClientId,
    authorization_details: Option<Box<RawValue>>,
    until: String,
}

/// The body of `POST /v1/grants`: whose grant it is, the token says.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnGrantBody {
    agent: ClientId,
    authorization_details: Box<RawValue>,
    until: String,
}

/// `POST /v1/admin/grants`
pub(super) async fn put(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    headers: HeaderMap,
    JsonText(body): JsonText<GrantBody>,
) -> Result<Response, Problem> {
    let request = GrantRequest {
        requester: Requester { issuer: body.issuer, subject: body.subject },
        agent: body.agent,
        authority: body.authorization_details.as_deref().map(details).transpose()?,
        until: until(&body.until, cx.now)?,
        idempotency_key: idempotency_key(&headers)?,
    };
    let grant = app.service.put_grant(Granter::Admin(&admin), request, &cx).await?;
    Ok((StatusCode::CREATED, Json(GrantView::from(grant))).into_response())
}

/// `POST /v1/grants`
pub(super) async fn put_own(
    State(app): State<App>,
    Own(caller, cx): Own,
    headers: HeaderMap,
    JsonText(body): JsonText<OwnGrantBody>,
) -> Result<Response, Problem> {
    let request = GrantRequest {
        requester: caller.requester().clone(),
        agent: body.agent,
        authority: Some(details(&body.authorization_details)?),
        until: until(&body.until, cx.now)?,
        idempotency_key: idempotency_key(&headers)?,
    };
    let grant = app.service.put_grant(Granter::Requester(&caller), request, &cx).await?;
    Ok((StatusCode::CREATED, Json(GrantView::from(grant))).into_response())
}

pub(super) fn details(text: &RawValue) -> Result<Authority, BadRequest> {
    Ok(parse_details(text.get(), None)?)
}

fn until(text: &str, now: Timestamp) -> Result<Timestamp, BadRequest> {
    let until = Timestamp::parse_rfc3339(text).ok_or(BadRequest::Invalid("until", "must be an RFC 3339 time"))?;
    if until.is_past(now) { Err(BadRequest::Invalid("until", "lies in the past")) } else { Ok(until) }
}

/// `DELETE /v1/admin/grants/{id}`
pub(super) async fn withdraw(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    id: Id,
) -> Result<StatusCode, Problem> {
    app.service.withdraw_grant(Granter::Admin(&admin), grant_id(&id)?, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /v1/grants/{id}`
pub(super) async fn withdraw_own(State(app): State<App>, Own(caller, cx): Own, id: Id) -> Result<StatusCode, Problem> {
    app.service.withdraw_grant(Granter::Requester(&caller), grant_id(&id)?, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn grant_id(Id(id): &Id) -> Result<GrantId, Problem> {
    id.parse::<GrantId>().map_err(|_| Conflict::NotFound("grant").into())
}

/// `DELETE /v1/admin/grants`: all of a requester to an agent.
pub(super) async fn withdraw_all(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    RawQuery(query): RawQuery,
) -> Result<StatusCode, Problem> {
    let query = Query::parse(query.as_deref(), &["issuer", "subject", "agent"])?;
    let requester = Requester {
        issuer: query.value("issuer")?.ok_or(BadRequest::Missing("issuer"))?,
        subject: query.value("subject")?.ok_or(BadRequest::Missing("subject"))?,
    };
    let agent = query.value("agent")?.ok_or(BadRequest::Missing("agent"))?;
    app.service.withdraw_grants(&admin, &requester, &agent, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /v1/admin/grants`
pub(super) async fn list(
    State(app): State<App>,
    Reader(admin, _): Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<GrantView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "issuer", "subject", "agent"])?;
    let filter = GrantFilter { requester: query.requester()?, agent: query.value("agent")? };
    let page = app.service.list_grants(Granter::Admin(&admin), filter, &query.page()?).await?;
    Ok(Json(ListView::of(page, GrantView::from)))
}

/// `GET /v1/grants`
pub(super) async fn list_own(
    State(app): State<App>,
    Own(caller, _): Own,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<GrantView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit", "agent"])?;
    let filter = GrantFilter { requester: None, agent: query.value("agent")? };
    let page = app.service.list_grants(Granter::Requester(&caller), filter, &query.page()?).await?;
    Ok(Json(ListView::of(page, GrantView::from)))
}
