//! `/v1/admin/…`: the registry, secrets, grants, keys, tokens, tasks, revocations, the trail.

use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use crate::{
    app::{BadRequest, Conflict, Revocation, Wanted},
    domain::{
        audit::searchable,
        id::{ClientId, Reason, Subject, TaskId, TokenId},
        keys::Occasion,
        registry::{Kind, Object},
        task::Requester,
        uri::{IssuerUrl, ResourceUri},
    },
    http::{
        App,
        body::JsonBody,
        client_auth::{Operator, Reader},
        path::Id,
        problem::Problem,
        query::Query,
        views::{AuditView, KeyView, ListView, MadeKeyView, ObjectView, RevocationView, SecretView, TokenView},
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
    Json(ListView::whole(entries.map(ObjectView::from).collect()))
}

fn read_object(kind: Kind, Reader(caller, _): &Reader, id: &str) -> Result<Json<ObjectView>, Problem> {
    let entry = caller.client().view().registry.entry(kind, id).ok_or(Conflict::NotFound(kind.as_str()))?;
    Ok(Json(entry.into()))
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
    Ok((status, Json(ObjectView::from(&entry))).into_response())
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
    };
    Ok(Json(ListView::of(app.service.list_tokens(&filter, &query.page()?).await?, TokenView::from)))
}

/// `GET /v1/admin/tokens/{id}`
pub(super) async fn read_token(State(app): State<App>, _: Reader, Id(id): Id) -> Result<Json<TokenView>, Problem> {
    let id = id.parse::<TokenId>().map_err(|_| Conflict::NotFound("token"))?;
    Ok(Json(app.service.read_token(id).await?.into()))
}

/// The body of `POST /v1/admin/revocations`.
#[derive(Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum RevocationBody {
    /// One token, with all that was derived from it.
    Token {
        /// Its `jti`.
        id: TokenId,
        /// Why.
        reason: Reason,
    },
    /// One task, with all its tokens.
    Task {
        /// Its id.
        id: TaskId,
        /// Why.
        reason: Reason,
    },
    /// Everything issued so far in a requester's name.
    Requester {
        /// The identity provider.
        issuer: IssuerUrl,
        /// The subject, prefix included.
        subject: Subject,
        /// Why.
        reason: Reason,
    },
    /// Everything issued so far that an agent acts in.
    Agent {
        /// Its client id.
        id: ClientId,
        /// Why.
        reason: Reason,
    },
    /// Everything issued so far for a resource: named by one of the two.
    Resource {
        /// Its client id, as long as it is registered.
        id: Option<ClientId>,
        /// Its URI.
        uri: Option<ResourceUri>,
        /// Why.
        reason: Reason,
    },
    /// Everything issued so far on the word of an identity provider.
    Issuer {
        /// Its identifier.
        id: IssuerUrl,
        /// Why.
        reason: Reason,
    },
}

impl RevocationBody {
    fn into_parts(self) -> Result<(Wanted, Reason), BadRequest> {
        Ok(match self {
            Self::Token { id, reason } => (Wanted::Token(id), reason),
            Self::Task { id, reason } => (Wanted::Task(id), reason),
            Self::Requester { issuer, subject, reason } => (Wanted::Requester(Requester { issuer, subject }), reason),
            Self::Agent { id, reason } => (Wanted::Agent(id), reason),
            Self::Resource { id: Some(id), uri: None, reason } => (Wanted::Resource(id), reason),
            Self::Resource { id: None, uri: Some(uri), reason } => (Wanted::ResourceAt(uri), reason),
            Self::Resource { .. } => return Err(BadRequest::Invalid("id", "name the resource by `id` or by `uri`")),
            Self::Issuer { id, reason } => (Wanted::Issuer(id), reason),
        })
    }
}

/// `POST /v1/admin/revocations`
pub(super) async fn revoke(
    State(app): State<App>,
    Operator(admin, cx): Operator,
    headers: HeaderMap,
    JsonBody(body): JsonBody<RevocationBody>,
) -> Result<Json<RevocationView>, Problem> {
    let (target, reason) = body.into_parts()?;
    let idempotency_key = idempotency_key(&headers)?;
    let revoked = app.service.revoke(&admin, Revocation { target, reason, idempotency_key }, &cx).await?;
    Ok(Json(revoked.into()))
}

pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, BadRequest> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let (Some(key), more) = (keys.next(), keys.next()) else { return Ok(None) };
    let text = key.to_str().ok().filter(|text| (1..=255).contains(&text.len()) && more.is_none());
    let rule = "one, of 1 to 255 printable ASCII characters";
    text.map(|text| Some(text.to_owned())).ok_or(BadRequest::Invalid("idempotency-key", rule))
}

/// `GET /v1/admin/revocations`
pub(super) async fn list_revocations(
    State(app): State<App>,
    _: Reader,
    RawQuery(query): RawQuery,
) -> Result<Json<ListView<RevocationView>>, Problem> {
    let query = Query::parse(query.as_deref(), &["after", "limit"])?;
    Ok(Json(ListView::of(app.service.list_revocations(&query.page()?).await?, RevocationView::from)))
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
