//! `/v1/admin/{agents,resources,issuers,admins}`: the objects of the registry.

use std::future::{Ready, ready};

use axum::{Json, extract::State, http::StatusCode, response::IntoResponse};
use serde_json::Value;

use crate::{
    app::{ConflictError, RequestError},
    domain::registry::{Entry, ObjectKind, RegistryObject, Source},
    http::{
        AppState, HandlerFuture,
        error::problem::Problem,
        extract::{
            auth::{AdminOperator, AdminReader},
            json::{self, JsonBody},
            path::PathId,
        },
        views::{ListView, ObjectView},
    },
};

/// Returns the handler of `GET /v1/admin/{kind}s`.
pub(in crate::http) fn list(
    kind: ObjectKind,
) -> impl Fn(AdminReader) -> Ready<Json<ListView<ObjectView>>> + Clone + Send + Sync + 'static {
    move |AdminReader(caller, _)| {
        let registry = &caller.client().snapshot().registry;
        let entries = registry.entries().iter().filter(|entry| entry.object.kind() == kind);
        ready(Json(ListView::complete(entries.map(|entry| ObjectView::new(entry, registry)).collect())))
    }
}

/// Returns the handler of `GET /v1/admin/{kind}s/{id}`.
pub(in crate::http) fn read(
    kind: ObjectKind,
) -> impl Fn(AdminReader, PathId) -> Ready<Result<Json<ObjectView>, Problem>> + Clone + Send + Sync + 'static {
    move |AdminReader(caller, _), PathId(id)| {
        let registry = &caller.client().snapshot().registry;
        let entry = registry.entry(kind, &id).ok_or(ConflictError::NotFound(kind.as_str()));
        ready(entry.map(|entry| Json(ObjectView::new(entry, registry))).map_err(Problem::from))
    }
}

/// Returns the handler of `PUT /v1/admin/{kind}s/{id}`.
pub(in crate::http) fn put(
    kind: ObjectKind,
) -> impl Fn(State<AppState>, AdminOperator, PathId, JsonBody<Value>) -> HandlerFuture + Clone + Send + Sync + 'static {
    move |State(app), AdminOperator(admin, cx), PathId(id), JsonBody(body)| {
        Box::pin(async move {
            let object = parse_object(kind, body)?;
            if object.id() != id {
                return Err(RequestError::InvalidParameter("id", "differs from the id in the path").into());
            }
            let is_new = app.service.put_object(&admin, &object, &cx).await?;
            let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
            let entry = Entry { object, source: Source::Api };
            Ok((status, Json(ObjectView::new(&entry, &admin.client().snapshot().registry))).into_response())
        })
    }
}

/// Returns the handler of `DELETE /v1/admin/{kind}s/{id}`.
pub(in crate::http) fn remove(
    kind: ObjectKind,
) -> impl Fn(State<AppState>, AdminOperator, PathId) -> HandlerFuture + Clone + Send + Sync + 'static {
    move |State(app), AdminOperator(admin, cx), PathId(id)| {
        Box::pin(async move {
            app.service.remove_object(&admin, kind, &id, &cx).await?;
            Ok(StatusCode::NO_CONTENT.into_response())
        })
    }
}

fn parse_object(kind: ObjectKind, body: Value) -> Result<RegistryObject, RequestError> {
    Ok(match kind {
        ObjectKind::Agent => RegistryObject::Agent(json::from_value(body)?),
        ObjectKind::Resource => RegistryObject::Resource(json::from_value(body)?),
        ObjectKind::Issuer => RegistryObject::Issuer(json::from_value(body)?),
        ObjectKind::Admin => RegistryObject::Admin(json::from_value(body)?),
    })
}
