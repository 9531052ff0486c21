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
    app::{ConflictError, RequestError},
    domain::{
        audit::normalize_search_name,
        id::{ClientId, KeyId, Reason, TokenId},
        keys::RotationReason,
        registry::{ObjectKind, RegistryObject},
    },
    http::{
        AppState,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            json::JsonBody,
            path::PathId,
            query::Query,
        },
        views::{AuditView, CreatedKeyView, KeyView, ListView, ObjectView, SecretView, TokenView},
    },
    ports::{AuditFilter, TokenFilter},
};

/// The routes of one kind of object.
pub(in crate::http) fn object_routes(path: &'static str, kind: ObjectKind) -> Router<AppState> {
    let list = move |reader: AdminReader| async move { list_objects(kind, &reader) };
    let read = move |reader: AdminReader, id: PathId| async move { read_object(kind, &reader, &id.0) };
    let put = move |app: State<AppState>, operator: AdminOperator, id: PathId, body: JsonBody<serde_json::Value>| {
        put_object(kind, app, operator, id, body)
    };
    let remove =
        move |app: State<AppState>, operator: AdminOperator, id: PathId| remove_object(kind, app, operator, id);
    Router::new().route(path, get(list)).route(&format!("{path}/{{id}}"), get(read).put(put).delete(remove))
}

fn list_objects(kind: ObjectKind, AdminReader(caller, _): &AdminReader) -> Json<ListView<ObjectView>> {
    let registry = &caller.client().snapshot().registry;
    let entries = registry.entries().iter().filter(|entry| entry.object.kind() == kind);
    Json(ListView::complete(entries.map(|entry| ObjectView::new(entry, registry)).collect()))
}

fn read_object(kind: ObjectKind, AdminReader(caller, _): &AdminReader, id: &str) -> Result<Json<ObjectView>, Problem> {
    let registry = &caller.client().snapshot().registry;
    let entry = registry.entry(kind, id).ok_or(ConflictError::NotFound(kind.as_str()))?;
    Ok(Json(ObjectView::new(entry, registry)))
}

async fn put_object(
    kind: ObjectKind,
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
    JsonBody(body): JsonBody<serde_json::Value>,
) -> Result<Response, Problem> {
    let object =
        serde_json::from_value::<RegistryObject>(serde_json::json!({"kind": kind, "body": body})).map_err(|fault| {
            RequestError::MalformedJson(crate::http::extract::json::redact_serde_error(&fault.to_string()))
        })?;
    if object.id() != id {
        return Err(RequestError::InvalidParameter("id", "is not the one in the path").into());
    }
    let is_new = app.service.put_object(&admin, &object, &cx).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let entry = crate::domain::registry::Entry { object, source: crate::domain::registry::Source::Api };
    Ok((status, Json(ObjectView::new(&entry, &admin.client().snapshot().registry))).into_response())
}

async fn remove_object(
    kind: ObjectKind,
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
) -> Result<StatusCode, Problem> {
    app.service.remove_object(&admin, kind, &id, &cx).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /v1/admin/clients/{id}/secret`
pub(in crate::http) async fn create_secret(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(id): PathId,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let id = id.parse::<ClientId>().map_err(|_| ConflictError::NotFound("client"))?;
    let made = app.service.create_secret(&admin, &id, extract_idempotency_key(&headers)?, &cx).await?;
    let view = SecretView { client_id: &made.client, client_secret: made.secret.expose() };
    Ok((StatusCode::CREATED, Json(view)).into_response())
}

/// `GET /v1/admin/keys`
pub(in crate::http) async fn list_keys(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
) -> Result<Json<ListView<KeyView>>, Problem> {
    let keys = app.service.list_keys(&cx).await?;
    Ok(Json(ListView::complete(keys.into_iter().map(KeyView::from).collect())))
}

/// `POST /v1/admin/keys/rotate`
pub(in crate::http) async fn rotate_keys(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    headers: HeaderMap,
) -> Result<Json<ListView<CreatedKeyView>>, Problem> {
    let key = extract_idempotency_key(&headers)?;
    let made = app.service.rotate_keys_idempotently(&admin.identity(), RotationReason::Requested, key, &cx).await?;
    let views = made.into_iter().map(|(algorithm, kid)| CreatedKeyView { algorithm, kid });
    Ok(Json(ListView::complete(views.collect())))
}

/// The body of `POST /v1/admin/keys/{kid}/revoke`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::http) struct KeyRevocationBody {
    reason: Reason,
}

/// `POST /v1/admin/keys/{kid}/revoke`
pub(in crate::http) async fn revoke_key(
    State(app): State<AppState>,
    AdminOperator(admin, cx): AdminOperator,
    PathId(kid): PathId,
    headers: HeaderMap,
    JsonBody(body): JsonBody<KeyRevocationBody>,
) -> Result<Json<ListView<CreatedKeyView>>, Problem> {
    let kid = kid.parse::<KeyId>().map_err(|_| ConflictError::NotFound("key"))?;
    let key = extract_idempotency_key(&headers)?;
    let made = app.service.revoke_key(&admin.identity(), &kid, &body.reason, key, &cx).await?;
    let views = made.into_iter().map(|(algorithm, kid)| CreatedKeyView { algorithm, kid });
    Ok(Json(ListView::complete(views.collect())))
}

/// `GET /v1/admin/tokens`
pub(in crate::http) async fn list_tokens(
    State(app): State<AppState>,
    AdminReader(_, cx): AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<TokenView>>, Problem> {
    let names = ["after", "limit", "task", "issuer", "subject", "client", "audience", "alive"];
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = TokenFilter {
        task: query.parse_value("task")?,
        requester: query.parse_requester()?,
        client: query.parse_value("client")?,
        audience: query.text("audience").map(str::to_owned),
        unexpired_at: query.parse_value::<bool>("alive")?.unwrap_or(false).then_some(cx.now),
        issued_from: None,
    };
    Ok(Json(ListView::from_page(app.service.list_tokens(&filter, &query.parse_page()?).await?, TokenView::from)))
}

/// `GET /v1/admin/tokens/{id}`
pub(in crate::http) async fn read_token(
    State(app): State<AppState>,
    _: AdminReader,
    PathId(id): PathId,
) -> Result<Json<TokenView>, Problem> {
    let id = id.parse::<TokenId>().map_err(|_| ConflictError::NotFound("token"))?;
    Ok(Json(app.service.read_token(id).await?.into()))
}

pub(in crate::http) fn extract_idempotency_key(headers: &HeaderMap) -> Result<Option<String>, RequestError> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| (1..=255).contains(&text.len()) && more.is_none());
    let rule = "one, of 1 to 255 printable ASCII characters";
    text.map(|text| Some(text.to_owned())).ok_or(RequestError::InvalidParameter("idempotency-key", rule))
}

/// `GET /v1/admin/audit`
pub(in crate::http) async fn list_audit(
    State(app): State<AppState>,
    _: AdminReader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<AuditView>>, Problem> {
    let names = ["after", "limit", "from", "until", "task", "issuer", "subject", "agent", "token", "resource"];
    let names = [&names[..], &["request_id", "event", "outcome"]].concat();
    let query = Query::parse(query.as_deref(), &names)?;
    let filter = AuditFilter {
        task: query.parse_value("task")?,
        requester: query.parse_requester()?,
        agent: query.text("agent").map(normalize_search_name),
        token: query.parse_value("token")?,
        resource: query.text("resource").map(normalize_search_name),
        request_id: query.parse_value("request_id")?,
        event: query.parse_word("event")?,
        outcome: query.parse_word("outcome")?,
        occurred_from: query.parse_time("from")?,
        occurred_before: query.parse_time("until")?,
    };
    Ok(Json(ListView::from_page(app.service.list_audit(&filter, &query.parse_page()?).await?, AuditView::from)))
}
