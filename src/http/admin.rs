//! `/v1/admin/…`: the registry, secrets, grants, keys, tokens, the trail.

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use crate::{
    app::{BadRequest, Conflict},
    domain::{
        audit::searchable,
        id::{ClientId, KeyId, Reason, TokenId},
        keys::Occasion,
        registry::{Kind, Object},
    },
    http::{
        App,
        body::JsonBody,
        client_auth::{Operator, Reader},
        path::Id,
        problem::Problem,
        query::Query,
        views::{AuditView, KeyView, ListView, MadeKeyView, ObjectView, SecretView, TokenView},
    },
    ports::{AuditFilter, TokenFilter},
};

/// The routes of one kind of object.
pub(super) fn objects(path: &'static str, kind: Kind) -> Router<App> {
    let list = move |reader: Reader| async move { list_objects(kind, &reader) };
    let read = move |reader: Reader, id: Id| async move { read_object(kind, &reader, &id.0) };
    let put = move |app: State<App>, operator: Operator, id: Id, body: JsonBody<serde_json::Value>| {
        put_object(kind, app, operator, id, body)
    };
    let remove = move |app: State<App>, operator: Operator, id: Id| remove_object(kind, app, operator, id);
    Router::new().route(path, get(list)).route(&format!("{path}/{{id}}"), get(read).put(put).delete(remove))
}

fn list_objects(kind: Kind, Reader(caller, _): &Reader) -> Json<ListView<ObjectView>> {
    let registry = &caller.client().view().registry;
    let entries = registry.entries().iter().filter(|entry| entry.object.kind() == kind);
    Json(ListView::whole(entries.map(|entry| ObjectView::of(entry, registry)).collect()))
}

fn read_object(kind: Kind, Reader(caller, _): &Reader, id: &str) -> Result<Json<ObjectView>, Problem> {
    let registry = &caller.client().view().registry;
    let entry = registry.entry(kind, id).ok_or(Conflict::NotFound(kind.as_str()))?;
    Ok(Json(ObjectView::of(entry, registry)))
}

async fn put_object(
    kind: Kind,
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(id): Id,
    JsonBody(body): JsonBody<serde_json::Value>,
) -> Result<Response, Problem> {
    let object = serde_json::from_value::<Object>(serde_json::json!({"kind": kind, "body": body}))
        .map_err(|fault| BadRequest::NotJson(super::body::without_values(&fault.to_string())))?;
    if object.id() != id {
        return Err(BadRequest::Invalid("id", "is not the one in the path").into());
    }
    let is_new = app.service.put_object(&admin, &object, &cx).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let entry = crate::domain::registry::Entry { object, owner: crate::domain::registry::Owner::Api };
    Ok((status, Json(ObjectView::of(&entry, &admin.client().view().registry))).into_response())
}

async fn remove_object(
    kind: Kind,
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(id): Id,
) -> Result<StatusCode, Problem> {
    app.service.remove_object(&admin, kind, &id, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/admin/clients/{id}/secret`
pub(super) async fn make_secret(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id.parse::<ClientId>().map_err(|_| Conflict::NotFound("client"))?;
    let made = app.service.make_secret(&admin, &id, idempotency_key(&headers)?, &cx).await?;
    let view = SecretView { client_id: &made.client, client_secret: made.secret.expose() };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `GET /v1/admin/keys`
pub(super) async fn list_keys(
    State(app): State<App>,
    Reader(_, cx): Reader,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let keys = app.service.list_keys(&cx).await?;
    Ok(Json(ListView::whole(keys.into_iter().map(KeyView::from).collect())))
}

/// `POST /v1/admin/keys/rotate`
pub(super) async fn rotate_keys(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    headers: HeaderMap,
) -> Result<Json<ListView<MadeKeyView>>, Problem> {
    let key = idempotency_key(&headers)?;
    let made = app.service.rotate_keys_once(&admin.name(), Occasion::Command, key, &cx).await?;
    let views = made.into_iter().map(|(algorithm, kid)| MadeKeyView { algorithm, kid });
    Ok(Json(ListView::whole(views.collect())))
}

/// The body of `POST /v1/admin/keys/{kid}/revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyRevocationBody {
    reason: Reason,
}

/// `POST /v1/admin/keys/{kid}/revoke`
pub(super) async fn revoke_key(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    Id(kid): Id,
    headers: HeaderMap,
    JsonBody(body): JsonBody<KeyRevocationBody>,
) -> Result<Json<ListView<MadeKeyView>>, Problem> {
    let kid = kid.parse::<KeyId>().map_err(|_| Conflict::NotFound("key"))?;
    let key = idempotency_key(&headers)?;
    let made = app.service.revoke_key(&admin.name(), &kid, &body.reason, key, &cx).await?;
    let views = made.into_iter().map(|(algorithm, kid)| MadeKeyView { algorithm, kid });
    Ok(Json(ListView::whole(views.collect())))
}

/// `GET /v1/admin/tokens`
pub(super) async fn list_tokens(
    State(app): State<App>,
    Reader(_, cx): Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TokenView>>, Problem> {
    let names = ["after", "limit", "task", "issuer", "subject", "client", "audience", "alive"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TokenFilter {
        task: query.value("task")?,
        requester: query.requester()?,
        client: query.value("client")?,
        audience: query.text("audience").map(str::to_owned),
        alive_at: query.value::<bool>("alive")?.unwrap_or(false).then_some(cx.now),
        issued_from: None,
    };
    Ok(Json(ListView::of(app.service.list_tokens(&filter, &query.page()?).await?, TokenView::from)))
}

/// `GET /v1/admin/tokens/{id}`
pub(super) async fn read_token(State(app): State<App>, _: Reader, Id(id): Id) -> Result<Json<TokenView>, Problem> {
    let id = id.parse::<TokenId>().map_err(|_| Conflict::NotFound("token"))?;
    Ok(Json(app.service.read_token(id).await?.into()))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, BadRequest> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| (1..=255).contains(&text.len()) && more.is_none());
    let rule = "one, of 1 to 255 printable ASCII characters";
    text.map(|text| Some(text.to_owned())).ok_or(BadRequest::Invalid("idempotency-key", rule))
}

/// `GET /v1/admin/audit`
pub(super) async fn list_audit(
    State(app): State<App>,
    _: Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<AuditView>>, Problem> {
    let names = ["after", "limit", "from", "until", "task", "issuer", "subject", "agent", "token", "resource"];
    let names = [&names[..], &["request_id", "event", "outcome"]].concat();
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = AuditFilter {
        task: query.value("task")?,
        requester: query.requester()?,
        agent: query.text("agent").map(searchable),
        token: query.value("token")?,
        resource: query.text("resource").map(searchable),
        request_id: query.value("request_id")?,
        event: query.word("event")?,
        outcome: query.word("outcome")?,
        from: query.time("from")?,
        until: query.time("until")?,
    };
    Ok(Json(ListView::of(app.service.list_audit(&filter, &query.page()?).await?, AuditView::from)))
}
